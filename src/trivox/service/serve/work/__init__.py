"""Processes that work on jobs: one child a job, within limits."""
