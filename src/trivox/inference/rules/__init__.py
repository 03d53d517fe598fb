"""Rules that clean label maps, and how they are chosen."""
