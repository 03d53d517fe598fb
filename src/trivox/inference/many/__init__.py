"""Many cases and whatever predicts one: which work goes on at the same time."""
