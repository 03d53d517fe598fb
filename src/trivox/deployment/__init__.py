"""Putting a model to work outside trivox."""
