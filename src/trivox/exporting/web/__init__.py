"""A model as an offline web page."""
