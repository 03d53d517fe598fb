"""Connected components of masks, and which of two masks' components meet: what
lesion-wise metrics count with.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from trivox.datasets.boxes import NOTHING, Box
from trivox.volumes.components import connected
from trivox.volumes.volume import Array

Integers = NDArray[np.int64]


class Meetings(NamedTuple):
    """Pairs of components that share voxels: number in the first map, in the second
    one, and shared voxels.
    """

    first: Integers
    second: Integers
    voxels: Integers


def label_components(mask: Array) -> Array:
    """26-connected components of a boolean mask `(z, y, x)` as numbers from 1 on,
    background 0.

    Numbers ascend in the order of the files (x slowest), in which the official packages
    number theirs: they decide between matches of equal value.
    """
    return np.ascontiguousarray(connected(mask.T).T)


def sizes(labels: Array) -> Integers:
    """Voxels of each number, background first."""
    return np.asarray(np.bincount(labels.ravel(), minlength=1), dtype=np.int64)


def meetings(first: Array, second: Array) -> Meetings:
    """All pairs of components of two maps that share a voxel, ordered by their numbers."""
    both = (first > 0) & (second > 0)
    base = int(second.max(initial=0)) + 1
    codes, voxels = np.unique(
        first[both].astype(np.int64) * base + second[both], return_counts=True
    )
    return Meetings(codes // base, codes % base, voxels)


def boxes(labels: Array) -> list[Box | None]:
    """The box around each number; entry 0, the background, is None."""
    if not labels.any():
        return [None]
    places: list[Any] = find_objects(labels.astype(np.int32, copy=False))
    return [None, *places]


def around(parts: Sequence[Box | None]) -> Box:
    """The smallest box that holds all of `parts`; those that are None hold nothing."""
    filled = [part for part in parts if part is not None]
    if not filled:
        return NOTHING
    z, y, x = zip(*filled, strict=True)
    return _hull(z), _hull(y), _hull(x)


def _hull(sides: Sequence[slice]) -> slice:
    """The shortest slice that holds all of `sides`."""
    first = min(side.start for side in sides)
    last = max(side.stop for side in sides)
    return slice(first, last)
