"""What is learnt: each task binds the rooms above in one readable file."""
