"""Intervals of volumes that hold the true one in nine cases of ten, learnt on validation
cases: split conformal prediction (Vovk et al. 2005; Lei et al. 2018) of the logarithm
of the true over the predicted volume.

The finite-sample guarantee asks for one thing only: that new cases are like the
validation cases, scanner, patients and all.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from trivox.schema import Frozen

LEVEL = 0.9
FARTHEST = 50.0
"""Logarithm of a ratio of volumes that no patient reaches."""
RULE = (
    "log((true + offset) / (predicted + offset)) of validation cases, offset one voxel "
    "of the plan; from the k-th smallest to the k-th largest of n, "
    "k = floor((n + 1) (1 - level) / 2), from 19 cases on; of 9 to 18 cases plus and "
    "minus the ceil((n + 1) level)-th smallest distance from 0; none of fewer"
)

Floats = NDArray[np.float64]
Pairs = Sequence[tuple[float, float]]
"""Predicted and true volume of each case, ml."""


class VolumeBand(Frozen):
    """Between what logarithms of true over predicted volume a target lies; cases: of
    how many they were learnt.
    """

    low: float = Field(ge=-FARTHEST, le=FARTHEST)
    high: float = Field(ge=-FARTHEST, le=FARTHEST)
    cases: int = Field(ge=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return self


class VolumeIntervals(Frozen):
    """What the bundle knows of the volumes of each target; None: too few cases.

    level: share of cases that an interval holds; offset_ml: added to both volumes, so
    that nothing found has an interval as well.
    """

    level: float = Field(LEVEL, gt=0, lt=1)
    offset_ml: float = Field(gt=0, le=1e6)
    targets: dict[str, VolumeBand | None]
    rule: str = RULE

    def interval(self, target: str, volume_ml: float) -> tuple[float, float] | None:
        """Bounds in ml, not below 0, for a predicted volume; None where nothing is
        known of the target.
        """
        band = self.targets.get(target)
        if band is None:
            return None
        shifted = volume_ml + self.offset_ml
        low = shifted * math.exp(band.low) - self.offset_ml
        high = shifted * math.exp(band.high) - self.offset_ml
        return max(0.0, low), max(0.0, high)


def learn_intervals(
    volumes: Mapping[str, Pairs], *, offset_ml: float
) -> VolumeIntervals | None:
    """From the volumes of validation cases by target; None if no target has enough."""
    bands = {}
    for target, pairs in volumes.items():
        bands[target] = band_of(log_ratios(pairs, offset_ml))
    if not any(bands.values()):
        return None
    return VolumeIntervals(offset_ml=offset_ml, targets=bands)


def log_ratios(pairs: Pairs, offset_ml: float) -> Floats:
    """Logarithm of true over predicted volume of each case, `(n,)`."""
    table = np.array(pairs, dtype=float).reshape(-1, 2) + offset_ml
    ratios = np.log(table[:, 1] / table[:, 0])
    return np.asarray(ratios.clip(-FARTHEST, FARTHEST))


def band_of(ratios: Floats, level: float = LEVEL) -> VolumeBand | None:
    """The band that `RULE` says; None of too few cases."""
    cases = ratios.size
    beyond = _floor((cases + 1) * (1 - level) / 2)
    if beyond:
        ordered = np.sort(ratios)
        low = float(ordered[beyond - 1])
        high = float(ordered[-beyond])
        return VolumeBand(low=low, high=high, cases=cases)
    place = cases + 1 - _floor((cases + 1) * (1 - level))
    if place > cases:
        return None
    half = float(np.sort(np.abs(ratios))[place - 1])
    return VolumeBand(low=-half, high=half, cases=cases)


def joint_intervals(
    models: Sequence[VolumeIntervals | None],
) -> tuple[VolumeIntervals, ...]:
    """What several models know of volumes; nothing unless each knows it."""
    known = [model for model in models if model is not None]
    return tuple(known) if len(known) == len(models) else ()


def joint_interval(
    models: Sequence[VolumeIntervals], target: str, volume_ml: float
) -> tuple[float, float] | None:
    """The interval that holds those of all models; None where one has none."""
    intervals = [model.interval(target, volume_ml) for model in models]
    known = [interval for interval in intervals if interval is not None]
    if not known or len(known) < len(intervals):
        return None
    lows, highs = zip(*known, strict=True)
    return min(lows), max(highs)


def held_by_others(
    ratios: Mapping[str, float], groups: Mapping[str, str]
) -> Iterator[tuple[str, bool]]:
    """Each case, and whether the band learnt on the cases of other groups holds it;
    cases whose others are too few are left out.
    """
    for group in dict.fromkeys(groups[name] for name in ratios):
        others = [ratio for name, ratio in ratios.items() if groups[name] != group]
        band = band_of(np.array(others))
        if band is None:
            continue
        for name, ratio in ratios.items():
            if groups[name] == group:
                yield name, band.low <= ratio <= band.high


def _floor(value: float) -> int:
    """The whole part, whatever rounding made of a whole number."""
    return math.floor(value + 1e-9)
