"""From a scan of any orientation to a grid about the isocentre, and back into the
world.
"""

import math

import numpy as np
import torch
from scipy.ndimage import affine_transform
from torch import Tensor

from trivox.errors import GeometryError
from trivox.projection.geometry import Grid
from trivox.volumes.geometry import canonical_orientation, reorient
from trivox.volumes.resampling import apply_along
from trivox.volumes.volume import Array, Volume, affine_from_spacing

Point = tuple[float, float, float]
"""`(x, y, z)` in RAS mm."""

AIR = -1000.0
"""HU."""
LOWEST = -1024.0
"""HU. Scanners pad with values below it (-2000, -3024), which mean air."""
STRAIGHT = 0.1
"""Voxels by which the far corner of a grid may be off for it to count as axis-aligned.
"""


def middle_of(volume: Volume) -> Point:
    """The middle of a volume's outer box, RAS mm: the isocentre where none is given."""
    middle = (np.array(volume.shape[::-1]) - 1) / 2
    x, y, z, _ = (volume.affine @ np.append(middle, 1)).tolist()
    return x, y, z


def on_grid(
    volume: Volume, grid: Grid, *, isocentre: Point, outside: float = AIR
) -> Array:
    """A CT on `grid`, `(z, y, x)` float32 HU; anti-aliased where the grid is coarser,
    linear where it is finer.

    volume: one channel, any orientation, also oblique or sheared; isocentre: RAS mm;
    outside: HU beyond the scan. Values below -1024 are scanner padding and become
    -1000. Raises `GeometryError` for several channels or values that are not finite.
    """
    if volume.channels != 1:
        raise GeometryError(
            f"a CT has one channel, this volume has {volume.channels}; give one of them"
        )
    if volume.array.dtype.kind == "f" and not np.isfinite(volume.array).all():
        raise GeometryError(
            "the CT holds NaN or infinite values; replace them, for example by -1000"
        )
    straight = reorient(volume, canonical_orientation(volume.affine))
    if not _is_straight(straight):
        straight = _straightened(straight, grid, isocentre, outside)
    start = straight.affine[:3, 3] - np.array(isocentre)
    centres = grid.coordinates(dtype=torch.float64)
    growth = [new / old for new, old in zip(grid.shape, straight.shape, strict=True)]
    result = torch.from_numpy(_unpadded(straight.array)).sub_(outside)
    for axis in sorted(range(3), key=growth.__getitem__):  # the largest cut first
        matrix = overlap_matrix(
            straight.shape[axis],
            straight.spacing[axis],
            float(start[2 - axis]),
            centres[axis],
            grid.spacing[axis],
        )
        result = apply_along(result, matrix, axis)
    return np.asarray(result.add_(outside)[0].numpy())


def overlap_matrix(
    size: int, spacing: float, start: float, centres: Tensor, step: float
) -> Tensor:
    """The `(new, size)` float32 operator that averages old voxels over new ones along
    an axis.

    start: centre of the first old voxel; centres: of the new voxels, `step` apart. An
    entry is the share of the new voxel (or, if that is smaller, of an old voxel's width
    about its centre: linear interpolation) that the old one covers. Rows sum to the
    share of the new voxel that lies within the old ones, so that the rest can be given
    a value of its own.
    """
    edges = start + (torch.arange(size + 1, dtype=torch.float64) - 0.5) * spacing
    shares = _overlap(centres, max(step, spacing), edges)
    inside = _overlap(centres, step, edges[[0, -1]])
    scale = inside / shares.sum(dim=1, keepdim=True).clamp(min=1e-12)
    return (shares * scale).float()


def _overlap(centres: Tensor, width: float, edges: Tensor) -> Tensor:
    """Share of each window `width` about the `centres` that lies between neighbouring
    `edges`: `(centres, edges - 1)`.
    """
    low = (centres - width / 2)[:, None]
    high = (centres + width / 2)[:, None]
    covered = torch.minimum(high, edges[1:]) - torch.maximum(low, edges[:-1])
    return covered.clamp(min=0) / width


def placed(array: Array, grid: Grid, *, isocentre: Point) -> Volume:
    """An array `(z, y, x)` on `grid` as a volume in the world that `isocentre` is given
    in.
    """
    z, y, x = (float(centres[0]) for centres in grid.coordinates(dtype=torch.float64))
    affine = affine_from_spacing(
        grid.spacing, (z + isocentre[2], y + isocentre[1], x + isocentre[0])
    )
    return Volume(array[None], affine)


def _is_straight(volume: Volume) -> bool:
    """Whether index axes run along the world's: the far corner is at most `STRAIGHT`
    voxels from where it would be.
    """
    linear = volume.affine[:3, :3]
    off = (linear - np.diag(np.diag(linear))) @ (np.array(volume.shape[::-1]) - 1.0)
    return float(np.abs(off).max()) <= STRAIGHT * min(volume.spacing)


def _straightened(
    volume: Volume, grid: Grid, isocentre: Point, outside: float
) -> Volume:
    """An oblique or sheared volume, interpolated linearly on a whole fraction of `grid`
    no coarser than its own voxels.
    """
    axes = zip(grid.shape, grid.spacing, volume.spacing, strict=True)
    z, y, x = (
        size * max(1, math.ceil(step / old_step - 1e-6))
        for size, step, old_step in axes
    )
    fine = grid.resized((z, y, x))
    placing = placed(np.zeros((1, 1, 1)), fine, isocentre=isocentre).affine
    # index (x, y, z) to index (x, y, z)
    to_old = np.linalg.inv(volume.affine) @ placing
    array = affine_transform(
        _unpadded(volume.array[0]),
        to_old[2::-1, 2::-1],
        to_old[2::-1, 3],
        output_shape=fine.shape,
        order=1,
        mode="grid-constant",
        cval=outside,
    )
    return Volume(array[None], placing)


def _unpadded(array: Array) -> Array:
    """HU as float32, a new array, scanner padding replaced by air."""
    values = array.astype(np.float32, order="C")
    values[values < LOWEST] = AIR
    return values
