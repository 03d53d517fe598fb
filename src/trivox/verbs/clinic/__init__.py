"""Verbs that bring models to where scans are made and read."""
