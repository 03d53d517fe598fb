"""Verbs that work beside a hospital's archive."""
