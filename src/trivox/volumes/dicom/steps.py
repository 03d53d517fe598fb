"""The distances between the slices of a stack, in words."""

from itertools import pairwise

import numpy as np

from trivox.errors import few
from trivox.volumes.dicom.places import SAME_PLACE, Vector

_UNEVEN = 0.01
"""Share of the usual distance by which a step between slices may differ from it."""
_SHOWN = 8
_RUN = 2
"""Steps in a row that make a distance of its own, and not a missing slice."""


def usual_step(heights: Vector) -> float:
    """The most common distance of neighbouring slices (their median), mm; 0 of one."""
    return float(np.median(np.diff(heights))) if len(heights) > 1 else 0.0


def largest_shift(heights: Vector) -> float:
    """How far a slice lies from where an even grid from the first to the last has it,
    mm.
    """
    even = np.linspace(heights[0], heights[-1], len(heights))
    return float(np.abs(heights - even).max())


def unevenness(heights: Vector, tolerance: float | None) -> str:
    """What is uneven about the slices at these heights, with what to do; blank if no
    distance differs from the usual one by more than the tolerance.

    tolerance: mm; None: 1 % of the usual distance, or the rounding of positions.
    """
    if len(heights) < 3:
        return ""
    steps = np.diff(heights)
    usual = usual_step(heights)
    rounding = max(_UNEVEN * usual, SAME_PLACE)
    allowed = rounding if tolerance is None else max(tolerance, SAME_PLACE)
    off = np.abs(steps - usual)
    if off.max() <= allowed:
        return ""
    changes = _changes(heights, rounding)
    if changes:
        return (
            f"slice distances change {changes}; give each part a folder of its own, or "
            "resample them to one distance"
        )
    missing = _missing(heights, usual, rounding)
    if missing:
        return f"{missing}; complete the series"
    worst = int(off.argmax())
    return (
        f"slice distances are uneven: {steps.min():.3g} to {steps.max():.3g} mm, "
        f"usually {usual:.3g} mm, farthest off between slices {worst + 1} and "
        f"{worst + 2} ({heights[worst]:.2f} mm along the normal); --slice-tolerance "
        f"{_above(off.max())} reads them as even"
    )


def _above(value: float) -> str:
    """A number that is not smaller than `value`, with two decimals."""
    return f"{np.ceil(value * 100) / 100:.2f}"


def _changes(heights: Vector, tolerance: float) -> str:
    """Where one distance gives way to another that lasts; blank if a distance occurs
    only once in a row.
    """
    steps = np.diff(heights)
    turns = 1 + np.flatnonzero(np.abs(np.diff(steps)) > tolerance)
    runs = np.split(steps, turns)
    if len(runs) < 2 or min(len(run) for run in runs) < _RUN:
        return ""
    changes: list[str] = []
    for turn, (before, after) in zip(turns, pairwise(runs), strict=True):
        changes.append(
            f"from {np.median(before):.3g} to {np.median(after):.3g} mm at slice "
            f"{turn + 1} ({heights[turn]:.2f} mm along the normal)"
        )
    return few(changes, separator=" and ", shown=4)


def _missing(heights: Vector, usual: float, tolerance: float) -> str:
    """How many slices are missing, and where; blank unless all wide steps are whole
    numbers of the usual one.
    """
    steps = np.diff(heights)
    wide = np.flatnonzero(np.abs(steps - usual) > tolerance)
    counts = np.rint(steps[wide] / usual).astype(int)
    whole = np.abs(steps[wide] - counts * usual) <= tolerance * np.maximum(counts, 1)
    if not whole.all() or counts.min() < 2:
        return ""
    places: list[str] = []
    for index, count in zip(wide, counts, strict=True):
        between = heights[index] + steps[index] * np.arange(1, count) / count
        places += [f"{height:.2f}" for height in between]
    slices = "1 slice is" if len(places) == 1 else f"{len(places)} slices are"
    return (
        f"{slices} missing at {few(places, shown=_SHOWN)} mm along the normal "
        f"(usual distance {usual:.3g} mm)"
    )
