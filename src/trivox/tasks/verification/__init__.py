"""Whether the figures of a run follow from its files."""
