"""Datasets: cases and what they mean, read from folders of any layout."""
