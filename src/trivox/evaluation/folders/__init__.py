"""Folders of predictions measured against references."""
