"""Metrics of arrays, and their statistics."""
