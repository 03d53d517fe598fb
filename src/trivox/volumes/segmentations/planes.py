"""Where the planes of a segmentation lie, and which voxels of a grid they are.

A plane is placed by its own position and directions, never by its number: empty planes
are left out of files, and those that are there come in any order.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivox.errors import GeometryError
from trivox.volumes.geometry import Orientation, orientation_towards, reorient
from trivox.volumes.segmentations.segments import Grid
from trivox.volumes.volume import Volume, spacing_of

APART = 0.1
"""Share of the smallest voxel edge by which a corner of a plane may be off its voxel;
what two grids may be apart to be one.
"""
SAME_HEIGHT = 0.01
"""mm; positions in headers are rounded to about this."""
_UNEVEN = 0.05
"""Share of the distance of planes by which one may be off its place."""
_PARTS = 12
"""Into so many parts is the smallest distance of two planes divided, at most, to find
a step that all distances are multiples of.
"""
_DEPTH = 1.0
"""mm, of a lone plane that says nothing of its depth."""
Vectors = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Planes:
    """Planes that are parallel and of one size, RAS mm.

    size: `(rows, columns)`; across, down: steps from a pixel to the next of its row and
    of its column; positions: of the first pixels, `(planes, 3)`; depth: distance of
    planes as the file says it, 0 where it does not; step: from a plane to the next,
    None: along the normal.
    """

    size: tuple[int, int]
    across: Vectors
    down: Vectors
    positions: Vectors
    depth: float = 0.0
    step: Vectors | None = None

    @cached_property
    def normal(self) -> Vectors:
        """The unit vector across the planes."""
        normal = np.cross(self.across, self.down)
        length = float(np.linalg.norm(normal))
        if length < 1e-12:
            raise GeometryError("its rows and columns are parallel; repair the file")
        return normal / length

    @cached_property
    def affine(self) -> Vectors:
        """Of the first plane: column, row, and the step, or mm along the normal."""
        affine = np.eye(4)
        affine[:3, 0] = self.across
        affine[:3, 1] = self.down
        affine[:3, 2] = self.normal if self.step is None else self.step
        affine[:3, 3] = self.positions[0]
        return affine

    def corners(self) -> Vectors:
        """Centres of the four outermost pixels of each plane, `(planes, 4, 3)`."""
        rows, columns = self.size
        ends = [*product((0, columns - 1), (0, rows - 1))]
        offsets = [column * self.across + row * self.down for column, row in ends]
        return self.positions[:, None] + np.array(offsets)

    def grid(self) -> Grid:
        """The smallest grid that holds all planes.

        Raises `GeometryError` for planes that do not lie behind each other, at
        multiples of one distance.
        """
        heights = (self.positions - self.positions[0]) @ self.normal
        first = self.positions[int(np.argmin(heights))]
        last = self.positions[int(np.argmax(heights))]
        span = float(heights.max() - heights.min())
        step = self.normal * (self.depth or _DEPTH)
        count = 1
        if span > SAME_HEIGHT:
            count = round(span / self._distance(heights)) + 1
            step = (last - first) / (count - 1)
        affine = self.affine.copy()
        affine[:3, 2] = step
        affine[:3, 3] = first
        return Grid((count, *self.size), affine)

    def _distance(self, heights: Vectors) -> float:
        """The largest distance of which all heights are multiples, mm."""
        from_first = np.unique(heights - heights.min())
        gaps = np.diff(from_first)
        smallest = float(gaps[gaps > SAME_HEIGHT].min())
        candidates = [self.depth] if 0 < self.depth < smallest * 1.01 else []
        candidates += [smallest / parts for parts in range(1, _PARTS + 1)]
        for distance in candidates:
            steps = from_first / distance
            if np.abs(steps - np.rint(steps)).max() <= _UNEVEN:
                return distance
        raise GeometryError(
            "its planes lie at uneven distances; give the image that it marks, whose "
            "grid then decides"
        )


class Laying(NamedTuple):
    """turned: brings a grid's axes into the order slices, rows, columns of the planes;
    shape: of the turned grid; corners: voxel `(slice, row, column)` of each plane's
    first pixel, `(planes, 3)`, which may lie outside.
    """

    turned: Orientation
    shape: tuple[int, int, int]
    corners: NDArray[np.int64]


def laid(planes: Planes, grid: Grid) -> Laying:
    """Which voxels of a grid the planes are; raises `GeometryError` unless their pixels
    are voxels of it, continued beyond its edges, in whatever order of its axes.

    Tolerance: `APART`, at the corners of the planes.
    """
    turned = orientation_towards(grid.affine, planes.affine)
    hollow = np.broadcast_to(np.uint8(0), (1, *grid.shape))
    canvas = reorient(Volume(hollow, grid.affine), turned)
    places = _indices(canvas.affine, planes.corners())
    first = np.rint(places[:, 0]).astype(np.int64)
    rows, columns = planes.size
    ends = np.array([*product((0, columns - 1), (0, rows - 1))])
    expected = np.zeros_like(places)
    expected += first[:, None]
    expected[..., :2] += ends
    apart_mm = (places - expected) @ canvas.affine[:3, :3].T
    worst = float(np.linalg.norm(apart_mm, axis=-1).max())
    if not worst <= APART * min(spacing_of(grid.affine)):
        raise GeometryError(_mismatch(planes, grid, worst))
    return Laying(turned, canvas.shape, first[:, ::-1])


def _indices(affine: Vectors, points: Vectors) -> Vectors:
    """Voxel indices `(x, y, z)` of points."""
    inverse = np.linalg.inv(affine)
    turned = points @ inverse[:3, :3].T
    return np.asarray(turned + inverse[:3, 3])


def _mismatch(planes: Planes, grid: Grid, worst: float) -> str:
    z, y, x = (round(mm, 3) for mm in spacing_of(grid.affine))
    across = round(float(np.linalg.norm(planes.across)), 3)
    down = round(float(np.linalg.norm(planes.down)), 3)
    return (
        f"its pixels are no voxels of the image: up to {worst:.3g} mm apart (pixels of "
        f"{down} x {across} mm, voxels of {z} x {y} x {x} mm, z y x); resample them to "
        "one grid, or give the image that it was drawn on"
    )
