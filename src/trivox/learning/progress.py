"""Where training stands, how much of its budget is spent, and how long the rest will
take.
"""

import math
from dataclasses import dataclass

from trivox.config.recipe import Recipe


@dataclass
class Progress:
    """Where training stands; saved with each checkpoint."""

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    smoothed: float | None = None
    best: float = -math.inf
    best_epoch: int = 0
    micro_batch: int | None = None
    finished: bool = False

    def share_spent(self, recipe: Recipe) -> float:
        """Share of the budget, minutes or steps, that is spent."""
        if recipe.minutes is not None:
            return self.seconds / (60 * recipe.minutes)
        return self.step / (recipe.epochs * recipe.iterations_per_epoch)

    def minutes_over(self, recipe: Recipe) -> bool:
        """Whether a budget of minutes is spent."""
        return recipe.minutes is not None and self.share_spent(recipe) >= 1

    def follow(self, dice: float, smoothing: float) -> None:
        """Bring the smoothed Dice up to date."""
        self.smoothed = (
            dice
            if self.smoothed is None
            else smoothing * self.smoothed + (1 - smoothing) * dice
        )


def duration(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `12 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def finite(value: float | None) -> float | None:
    """The value, or None for NaN and infinity: JSON knows neither."""
    return value if value is not None and math.isfinite(value) else None
