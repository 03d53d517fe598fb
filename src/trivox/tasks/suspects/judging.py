"""Which cases differ from their predictions as others do not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trivox.tasks.suspects.disagreement import CORE_MM, Disagreement

LIMIT = 3.5
"""Robust standard deviations above the median from which on a case is doubtful; chosen
on hippocampus labels with planted errors (benchmarks/label_errors.py).
"""
LEAST_CASES = 8
"""With fewer it is not known what is usual."""
TO_DEVIATION = 1.4826
"""A median absolute deviation times this is the standard deviation of a normal law."""
SMALLEST = {"depth": 0.5, "core": 1.0, "island": 1.0}
SMALLEST_OF_DICE = 0.15
"""Deviations are taken as at least this large: predictions may be nearly perfect."""


@dataclass(frozen=True)
class Suspect:
    """A case whose label is probably wrong. score: of its strongest sign; reasons: in
    words, strongest first; strongest: name of the sign.
    """

    case: str
    score: float
    reasons: tuple[str, ...]
    strongest: str
    disagreement: Disagreement


class Usual(NamedTuple):
    """Median of a sign over all cases, and its robust standard deviation."""

    median: float
    deviation: float

    def score(self, value: float) -> float:
        """By how many deviations a value lies above the median."""
        return (value - self.median) / self.deviation


def suspects(
    cases: Mapping[str, Disagreement], *, limit: float = LIMIT
) -> list[Suspect]:
    """Cases with a sign of more than `limit` robust deviations (median and median
    absolute deviation over all cases), most doubtful first; none of fewer than 8 cases.
    """
    if len(cases) < LEAST_CASES:
        return []
    usual = _usual(cases)
    chosen = []
    for case, each in cases.items():
        scores = {
            name: usual[name].score(value)
            for name, value in each.signs.items()
            if name in usual
        }
        strong = [name for name, score in scores.items() if score > limit]
        strong.sort(key=scores.__getitem__, reverse=True)
        if strong:
            reasons = tuple(_reason(name, each, cases) for name in strong)
            suspect = Suspect(case, scores[strong[0]], reasons, strong[0], each)
            chosen.append(suspect)
    return sorted(chosen, key=lambda suspect: -suspect.score)


def _usual(cases: Mapping[str, Disagreement]) -> dict[str, Usual]:
    """Of each sign that enough cases have."""
    values: dict[str, list[float]] = {}
    for each in cases.values():
        for name, value in each.signs.items():
            values.setdefault(name, []).append(value)
    usual = {}
    for name, numbers in values.items():
        if len(numbers) < LEAST_CASES:
            continue
        middle = float(np.median(numbers))
        distances = np.abs(np.array(numbers) - middle)
        deviation = TO_DEVIATION * float(np.median(distances))
        smallest = SMALLEST.get(name, SMALLEST_OF_DICE)
        usual[name] = Usual(middle, max(deviation, smallest))
    return usual


def _reason(name: str, each: Disagreement, cases: Mapping[str, Disagreement]) -> str:
    """A sign in words, with what is usual."""
    if name == "depth":
        usual = np.median([other.depth_mm for other in cases.values()])
        place = _shown(each.place)
        return (
            f"differs {each.depth_mm:.1f} mm deep at voxel {place} (usual {usual:.1f})"
        )
    if name == "core":
        usual = np.median([other.core_ml for other in cases.values()])
        place = _shown(each.place)
        return (
            f"{each.core_ml:.2f} ml differ at least {CORE_MM:g} mm deep, most at voxel "
            f"{place} (usual {usual:.2f})"
        )
    if name == "island":
        place = _shown(each.island_place)
        return f"{each.island_ml:.2f} ml stand alone at voxel {place}"
    target = name.removeprefix("dice ")
    known = [other.dice.get(target) for other in cases.values()]
    usual = np.median([value for value in known if value is not None])
    return f"Dice of {target} {each.dice[target] or 0:.3f} (usual {usual:.3f})"


def _shown(place: tuple[int, ...]) -> str:
    z, y, x = place
    return f"({z}, {y}, {x}) (z y x)"
