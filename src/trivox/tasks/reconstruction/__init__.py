"""The task that gives volumes."""
