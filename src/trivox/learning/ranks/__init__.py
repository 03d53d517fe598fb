"""The processes that torchrun started: how they meet, and how they share work."""
