"""Label maps on a part of an image's grid, as programs save them that crop to what is
marked.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from trivox.errors import GeometryError
from trivox.volumes.geometry import Orientation, describe_mismatch
from trivox.volumes.segmentations.planes import Planes, laid
from trivox.volumes.segmentations.segments import Grid
from trivox.volumes.volume import Volume

PART = "part: covers a part of the image's grid, the rest is taken as background"


def is_part(
    shape: tuple[int, int, int], affine: NDArray[np.float64], grid: Grid
) -> bool:
    """Whether all voxels `(z, y, x)` of a grid are voxels of another one, in whatever
    order of its axes, to within the tolerance of `laid`.
    """
    return _corner(shape, affine, grid) is not None


def brought_onto(volume: Volume, grid: Grid, *, background: int) -> Volume:
    """A label map on a part of a grid, brought onto all of it; one that is on this grid
    or elsewhere as it is.

    background: the value of what it does not cover.
    """
    if agree(volume, grid):
        return volume
    corner = _corner(volume.shape, volume.affine, grid)
    if corner is None:
        return volume
    turned, (z, y, x) = corner
    array = np.full((volume.channels, *grid.shape), background, volume.array.dtype)
    slices, rows, columns = volume.shape
    view = turned.apply(array)
    view[:, z : z + slices, y : y + rows, x : x + columns] = volume.array
    remarks = (*volume.remarks, PART)
    return Volume(array, grid.affine, remarks, unit_mm=volume.unit_mm)


def agree(volume: Volume, grid: Grid) -> bool:
    """Whether a volume lies on a grid."""
    mismatch = describe_mismatch(grid.shape, grid.affine, volume.shape, volume.affine)
    return mismatch is None


def _corner(
    shape: tuple[int, int, int], affine: NDArray[np.float64], grid: Grid
) -> tuple[Orientation, tuple[int, int, int]] | None:
    """How a grid is to be turned, and where in it the first voxel lies; None where some
    lie outside, or between its voxels.
    """
    across, down, step = affine[:3, :3].T
    slices, *size = shape
    ends = affine[:3, 3] + np.array([[0.0], [slices - 1.0]]) * step
    planes = Planes((size[0], size[1]), across, down, ends, step=step)
    try:
        laying = laid(planes, grid)
    except GeometryError:
        return None
    first, last = laying.corners
    extent = last - first + (1, *size)
    whole = (extent == shape).all()
    inside = (first >= 0).all() and (first + shape <= laying.shape).all()
    if not (whole and inside):
        return None
    z, y, x = first.tolist()
    return laying.turned, (z, y, x)


def joined(one: Grid, other: Grid) -> Grid:
    """The smallest grid, in the voxels of one, that holds both."""
    z, y, x = other.shape
    ends = np.array([*product((0, x - 1), (0, y - 1), (0, z - 1), (1,))])
    corners = np.linalg.solve(one.affine, other.affine @ ends.T)[:3].T
    last = np.array(one.shape[::-1]) - 1
    low = np.minimum(np.rint(corners.min(axis=0)), 0)
    high = np.maximum(np.rint(corners.max(axis=0)), last)
    affine = one.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    x, y, z = (high - low + 1).astype(int).tolist()
    return one._replace(shape=(z, y, x), affine=affine)
