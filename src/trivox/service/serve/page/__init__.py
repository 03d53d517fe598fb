"""The page that the service serves."""
