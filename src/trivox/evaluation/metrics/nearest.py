"""Exact distance from each voxel of one mask to the nearest voxel of another, in mm.

Surfaces to be compared lie close together. So the distance along z is tabled for every
column (two sweeps), and each voxel looks at the columns around it from near to far
until no farther one can be nearer: `d² = min over (dy, dx) of (dz(dy, dx) sz)² + (dy
sy)² + (dx sx)²`, Saito and Toriwaki's (1994) last pass at the voxels that matter only.
The few whose nearest neighbour lies beyond `REACH` columns are looked up in a KD-tree.

The distance transform of a whole box (PyPI package `edt` 3.1.2, one thread) gives the
same to 1e-4 mm. Ours is 1.8 to 5.3 times as fast on organs and lesions, 2.4 to 13 times
where only distances within 2 mm are wanted, and 0.7 to 1.1 times where half an organ
was missed (CPU seconds, benchmarks/nearest.py).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from trivox.volumes.geometry import Lattice, steps_of, upright_spacing
from trivox.volumes.volume import Array, Spacing, Steps

Floats = NDArray[np.float64]

REACH = 16
"""Columns to each side that are looked at."""
TOGETHER = 1 << 16
"""Pairs of voxel and column looked at in one go: several columns at once pay where few
voxels are left.
"""
FAR = 10_000
"""Voxels along z to nothing at all."""


class ColumnDistances(NamedTuple):
    """Voxels along z from each place to the mask, `(z, y, x)` int16, with `REACH` empty
    columns around.
    """

    distance: Array

    @classmethod
    def of(cls, mask: Array) -> "ColumnDistances":
        """Two sweeps along z, a slice at a time."""
        z, y, x = mask.shape
        padded = np.full((z, y + 2 * REACH, x + 2 * REACH), FAR, dtype=np.int16)
        distance = padded[:, REACH : REACH + y, REACH : REACH + x]
        outside = (~mask).view(np.int8).astype(np.int16)
        for planes in (range(z), reversed(range(z))):
            steps = np.full((y, x), FAR, dtype=np.int16)
            for k in planes:
                steps += steps < FAR
                steps *= outside[k]  # 0 in the mask
                np.minimum(distance[k], steps, out=distance[k])
        return cls(padded)


def distances_to(
    points: Array,
    mask: Array,
    *,
    spacing: Lattice,
    limit_mm: float = np.inf,
    workers: int = 1,
) -> Floats:
    """Distance in mm of each true voxel of `points` to the nearest one of `mask`, both
    boolean `(z, y, x)` of one shape; spacing: mm `(z, y, x)`, or the steps of a sheared
    grid, whose distances all come from the KD-tree.

    In the order of `np.flatnonzero(points)`; infinite beyond `limit_mm`, or where
    `mask` is empty. workers: threads of the KD-tree.
    """
    if not points.any() or not mask.any():
        return np.full(np.count_nonzero(points), np.inf)
    upright = upright_spacing(spacing)
    if upright is None:
        result = np.full(np.count_nonzero(points), np.inf)
        open_ones = np.arange(len(result))
    else:
        columns = ColumnDistances.of(mask).distance
        squared, open_ones = _scan(points, columns, upright, limit_mm)
        result = np.sqrt(squared)
    if open_ones.size:
        steps = steps_of(spacing if upright is None else upright)
        places = np.argwhere(points)[open_ones] @ steps
        result[open_ones] = _tree_query(places, mask, steps, limit_mm, workers)
    result[result > _bound(limit_mm)] = np.inf
    return result


def _bound(limit_mm: float) -> float:
    """Rounding must not drop a distance of exactly the limit."""
    return limit_mm * (1 + 1e-6) + 1e-6


@lru_cache(maxsize=32)
def _neighbours(spacing_y: float, spacing_x: float) -> tuple[Array, Array, Floats]:
    """Steps `(dy, dx)` to the columns around, near to far, and their squared distance
    in mm²; whole rings only.
    """
    steps = np.arange(-REACH, REACH + 1)
    dy = np.repeat(steps, len(steps))
    dx = np.tile(steps, len(steps))
    squared = (dy * spacing_y) ** 2 + (dx * spacing_x) ** 2
    reach_mm = REACH * min(spacing_y, spacing_x)
    near = np.flatnonzero(squared <= reach_mm**2)
    order = near[np.argsort(squared[near], kind="stable")]
    return dy[order], dx[order], squared[order]


def _scan(
    points: Array, columns: Array, spacing: Spacing, limit_mm: float
) -> tuple[Floats, Array]:
    """Squared distances, and the numbers of the points whose nearest neighbour may lie
    beyond the columns looked at.
    """
    dy, dx, ring = _neighbours(spacing[1], spacing[2])
    offsets = dy * columns.shape[2] + dx
    table = columns.reshape(-1)
    along_z = (np.arange(FAR + 1) * float(spacing[0])) ** 2
    along_z[FAR] = np.inf
    places = _places_of(points, columns)
    numbers = np.arange(len(places))  # of the points that are still open
    result = np.full(len(places), np.inf)
    best = result.copy()
    bound = _bound(limit_mm) ** 2
    done = 0
    while len(numbers) and done < len(offsets) and ring[done] <= bound:
        several = TOGETHER // len(numbers)
        if several > 3:
            looked_at = slice(done, done + min(several, 256))
            voxels = table[places[:, None] + offsets[looked_at]]
            squared = (along_z[voxels] + ring[looked_at]).min(axis=1)
            done = looked_at.stop
        else:
            squared = along_z[table[places + offsets[done]]] + ring[done]
            done += 1
        np.minimum(best, squared, out=best)
        waiting = best > (ring[done] if done < len(offsets) else ring[-1])
        result[numbers[~waiting]] = best[~waiting]
        numbers = numbers[waiting]
        places = places[waiting]
        best = best[waiting]
    if done < len(offsets):  # no column left within the limit
        numbers = numbers[:0]
    return result, numbers


def _places_of(points: Array, columns: Array) -> NDArray[np.int64]:
    """Where the points lie in the flattened table of columns."""
    # Ten times as fast as np.nonzero.
    z, y, x = np.unravel_index(np.flatnonzero(points), points.shape)
    return np.ravel_multi_index((z, y + REACH, x + REACH), columns.shape)


def _tree_query(
    places: Floats, mask: Array, steps: Steps, limit_mm: float, workers: int
) -> Floats:
    """Distance of each place in mm to the nearest voxel of the mask, by a KD-tree."""
    # Surfaces are evenly spread: the cheap midpoint tree is as good as a balanced one
    # and built much faster.
    tree = cKDTree(
        np.argwhere(mask) @ steps,
        leafsize=32,
        balanced_tree=False,
        compact_nodes=False,
    )
    bound = _bound(limit_mm)
    distances, _ = tree.query(places, workers=workers, distance_upper_bound=bound)
    return np.asarray(distances)
