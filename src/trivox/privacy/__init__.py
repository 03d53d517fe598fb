"""Scans without the person: what identifies a patient is left out, by an allow-list."""
