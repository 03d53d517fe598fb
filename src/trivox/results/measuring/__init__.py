"""What can be measured of a structure, and what cannot be known."""
