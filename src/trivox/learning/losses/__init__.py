"""Losses: one idea a module, `choice` builds them by name."""
