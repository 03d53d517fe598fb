"""Drawn datasets whose truth is known."""
