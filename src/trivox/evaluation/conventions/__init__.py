"""Whose rules a case is measured by."""
