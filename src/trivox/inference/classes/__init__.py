"""The class of a case: features, readers, files."""
