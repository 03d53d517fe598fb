"""How unsure a prediction is."""
