"""What would make training on a dataset wrong."""
