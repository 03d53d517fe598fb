"""Label maps on a part of an image's grid, as programs save them that crop to what is
marked.
"""

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivox.errors import GeometryError
from trivox.volumes.geometry import Orientation, describe_mismatch
from trivox.volumes.segmentations.planes import Planes, laid
from trivox.volumes.segmentations.segments import Grid
from trivox.volumes.volume import Shape, Volume

Affine = NDArray[np.float64]
PART = "part: covers a part of the image's grid, the rest is taken as background"


class Corner(NamedTuple):
    """How a grid is to be turned, and which of its voxels then is the first of a part."""

    turned: Orientation
    plane: int
    row: int
    column: int

    def box(self, shape: Shape) -> tuple[slice, slice, slice]:
        """The voxels of a part of so many planes, rows and columns."""
        planes, rows, columns = shape
        return (
            slice(self.plane, self.plane + planes),
            slice(self.row, self.row + rows),
            slice(self.column, self.column + columns),
        )


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
    array = np.full((volume.channels, *grid.shape), background, volume.array.dtype)
    view = corner.turned.apply(array)
    view[:, *corner.box(volume.shape)] = volume.array
    remarks = (*volume.remarks, PART)
    return Volume(array, grid.affine, remarks, unit_mm=volume.unit_mm)


def agree(volume: Volume, grid: Grid) -> bool:
    """Whether a volume lies on a grid."""
    mismatch = describe_mismatch(grid.shape, grid.affine, volume.shape, volume.affine)
    return mismatch is None


def _corner(shape: Shape, affine: Affine, grid: Grid) -> Corner | None:
    """Where a grid begins in another one; None where some of its voxels lie outside, or
    between the other's.
    """
    slices, rows, columns = shape
    across, down, step = affine[:3, :3].T
    first = affine[:3, 3]
    last = first + (slices - 1) * step
    ends = np.stack([first, last])
    planes = Planes((rows, columns), across, down, ends, step=step)
    try:
        laying = laid(planes, grid)
    except GeometryError:
        return None
    begin, end = laying.corners
    after = begin + shape
    expected = np.add(begin, [slices - 1, 0, 0])
    inside = np.all(begin >= 0) and np.all(after <= laying.shape)
    if not inside or np.any(end != expected):
        return None
    z, y, x = begin.tolist()
    return Corner(laying.turned, z, y, x)


def joined(one: Grid, other: Grid) -> Grid:
    """The smallest grid, in the voxels of one, that holds both."""
    last = np.array(one.shape[::-1]) - 1
    reached = _corners_in(one, other)
    lowest = reached.min(axis=0)
    highest = reached.max(axis=0)
    low = np.minimum(lowest, 0)
    high = np.maximum(highest, last)
    affine = one.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ low
    sizes = high - low + 1
    x, y, z = sizes.astype(int).tolist()
    return one._replace(shape=(z, y, x), affine=affine)


def _corners_in(one: Grid, other: Grid) -> Affine:
    """The eight outermost voxels `(x, y, z)` of a grid in the voxels of another one."""
    z, y, x = other.shape
    ends = product((0, x - 1), (0, y - 1), (0, z - 1), (1,))
    places = other.affine @ np.array([*ends]).T
    indices = np.linalg.solve(one.affine, places)
    return np.rint(indices[:3].T)
