"""Where training stands, how much of its budget is spent, and how long the rest will
take.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field, TypeAdapter

from trivox.config.recipe import Recipe

ShowSteps = Callable[[Sequence[int], str, Callable[[], str]], Iterator[int]]
"""Passes steps through and shows how far they are: the steps, what they are ("epoch
3"), and a call that says what is known meanwhile ("loss 0.412", or nothing).
"""


def unshown(steps: Sequence[int], what: str, note: Callable[[], str]) -> Iterator[int]:
    """Steps that nobody watches."""
    return iter(steps)


@dataclass
class Progress:
    """Where training stands; saved with each checkpoint."""

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {
        "extra": "forbid",
        "allow_inf_nan": False,
    }

    epoch: Annotated[int, Field(ge=0)] = 0
    step: Annotated[int, Field(ge=0)] = 0
    seconds: Annotated[float, Field(ge=0)] = 0.0
    smoothed: float | None = None
    best: float = -math.inf
    best_epoch: Annotated[int, Field(ge=0)] = 0
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    first_loss: float | None = None
    """The first that was a number: what later ones are measured by."""
    finished: bool = False

    @classmethod
    def restored(cls, content: Mapping[str, Any]) -> "Progress":
        """What `to_json` gave; raises `ValueError` for anything else."""
        known = {name: value for name, value in content.items() if value is not None}
        return TypeAdapter(cls).validate_python(known)

    def to_json(self) -> dict[str, object]:
        """Ready for JSON, which knows no infinity."""
        return {**asdict(self), "best": finite(self.best)}

    def share_spent(self, recipe: Recipe) -> float:
        """Share of the budget, minutes or steps, that is spent."""
        if recipe.minutes is not None:
            return self.seconds / (60 * recipe.minutes)
        return self.step / (recipe.epochs * recipe.iterations_per_epoch)

    def over(self, recipe: Recipe) -> bool:
        """Whether the budget or the patience is spent."""
        return self.out_of_patience(recipe) or self.share_spent(recipe) >= 1

    def minutes_over(self, recipe: Recipe) -> bool:
        """Whether a budget of minutes is spent."""
        return recipe.minutes is not None and self.share_spent(recipe) >= 1

    def out_of_patience(self, recipe: Recipe) -> bool:
        """Whether the smoothed score has not risen for as long as the recipe waits."""
        patience = recipe.early_stopping
        return patience is not None and self.epoch - self.best_epoch >= patience

    def smoothed_with(self, score: float, smoothing: float) -> float:
        """The smoothed score once `score` is taken into it."""
        if self.smoothed is None:
            return score
        return smoothing * self.smoothed + (1 - smoothing) * score

    def follow(self, score: float, smoothing: float) -> float:
        """Bring the smoothed score and the best one up to date; returns the first."""
        smoothed = self.smoothed_with(score, smoothing)
        self.smoothed = smoothed
        if smoothed > self.best:
            self.best = smoothed
            self.best_epoch = self.epoch
        return smoothed


@dataclass
class Clock:
    """When this session of a training began and saved; `monotonic` seconds."""

    began: float
    """Moved back by what earlier sessions took."""
    last_save: float
    first_epoch: int
    """Epochs that earlier sessions finished."""

    @classmethod
    def starting(cls, progress: Progress) -> "Clock":
        """The clock of a session that goes on from `progress`."""
        now = time.monotonic()
        return cls(now - progress.seconds, now, progress.epoch)

    def seconds(self) -> float:
        """Seconds of training, those of earlier sessions included."""
        return time.monotonic() - self.began

    def saved(self) -> None:
        """Take note of a save."""
        self.last_save = time.monotonic()

    def since_save(self) -> float:
        """Seconds since the last save, or since the session began."""
        return time.monotonic() - self.last_save


def duration(seconds: float) -> str:
    """Seconds as people say them: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def finite(value: float | None) -> float | None:
    """The value, or None for NaN and infinity: JSON knows neither."""
    return value if value is not None and math.isfinite(value) else None
