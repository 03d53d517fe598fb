"""The training loop and what it needs: losses, schedules, runtime, checkpoints,
tracking.
"""
