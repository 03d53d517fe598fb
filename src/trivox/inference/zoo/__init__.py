"""Models that are ready to use: their cards, where they lie, how they get here."""
