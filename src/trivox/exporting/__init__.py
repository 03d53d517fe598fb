"""Models put to work outside trivox."""
