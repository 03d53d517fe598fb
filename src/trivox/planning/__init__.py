"""Fingerprint and plan: what was measured on a dataset, and what was decided from it."""
