"""X-ray geometry, the projector, and classical reconstruction."""
