"""From source files to batches: normalise, crop, store, sample, augment."""
