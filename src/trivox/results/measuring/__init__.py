"""What can be measured of a structure: size, place, intensity, and what cannot be known."""
