"""Models and data of others, brought in."""
