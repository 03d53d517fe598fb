"""What computes a network at prediction."""
