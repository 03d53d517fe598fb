"""How a training step is computed: optimizer and rate, what freezes, grows and follows."""
