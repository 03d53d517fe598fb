"""Painting soft-edged shapes on a grid: each is drawn in its bounding box alone, its
border is about one voxel wide.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivox.projection.geometry import Grid

Field3 = NDArray[np.float32]  # (z, y, x)
Vector = NDArray[np.float64]  # (x, y, z), mm
Rotation = NDArray[np.float64]  # (3, 3)
Point = Sequence[float] | Vector
Box = tuple[slice, slice, slice]

WHOLE_AXIS = slice(None)
EVERYWHERE: Box = (WHOLE_AXIS, WHOLE_AXIS, WHOLE_AXIS)


class Pose(NamedTuple):
    """How the patient lies: patient coordinates = `turn` @ (grid coordinates -
    `shift`).
    """

    turn: Rotation
    shift: Vector


class Canvas:
    """HU and tissue of each voxel, and where its centre is in the patient's own
    coordinates (mm, `(z, y, x)` arrays).
    """

    def __init__(self, grid: Grid, pose: Pose, *, hounsfield: float) -> None:
        self.grid = grid
        self.pose = pose
        self.edge = float(np.mean(grid.spacing))
        self.hounsfield = np.full(grid.shape, hounsfield, np.float32)
        self.tissues = np.zeros(grid.shape, np.uint8)
        self.x, self.y, self.z = _patient_coordinates(grid, pose)

    def around(self, centre: Point, reach: Point) -> Box:
        """Voxels of the grid that hold the patient's box `centre` +- `reach`, a voxel
        more for the soft edge.
        """
        to_grid = self.pose.turn.T
        middle = to_grid @ np.asarray(centre, float) + self.pose.shift
        middle -= np.array(self.grid.centre_mm)
        with_edge = np.asarray(reach, float) + self.edge
        half = np.abs(to_grid) @ with_edge
        sides = []
        for axis, size in enumerate(self.grid.shape):
            step = self.grid.spacing[axis]
            at = middle[2 - axis] / step
            width = half[2 - axis] / step
            sides.append(_side(size, at, width))
        z, y, x = sides
        return z, y, x

    def places(self, box: Box) -> tuple[Field3, Field3, Field3]:
        """Patient coordinates `x, y, z` of the voxels in a box."""
        return self.x[box], self.y[box], self.z[box]

    def soft(self, distance: Field3) -> Field3:
        """Share of each voxel inside, from the signed distance to the border (mm,
        negative inside); works in place.
        """
        distance *= np.float32(-1 / self.edge)
        distance += np.float32(0.5)
        return np.clip(distance, 0, 1, out=distance)

    def paint(
        self,
        box: Box,
        share: Field3,
        hounsfield: float | Field3,
        tissue: int | None,
    ) -> None:
        """Mix a tissue in: its share of the voxel displaces what is there.

        tissue: None leaves the names as they are.
        """
        if share.size == 0:
            return
        under = self.hounsfield[box]
        over = np.asarray(hounsfield, np.float32)
        under += share * (over - under)
        if tissue is not None:
            inside = share > 0.5
            self.tissues[box][inside] = tissue

    # -- shapes ------------------------------------------------------------------------
    def ellipsoid(
        self,
        centre: Point,
        radii: Point,
        turn: Rotation | None = None,
    ) -> tuple[Box, Field3]:
        """Box and share of an ellipsoid, turned by the rotation `turn` (its own axes as
        rows).
        """
        reach = radii
        if turn is not None:
            longest = float(np.max(radii))
            reach = (longest, longest, longest)
        box = self.around(centre, reach)
        gaps = self._gaps(box, centre)
        if turn is not None:
            gaps = [_mix(gaps, axis) for axis in turn]
        # Not quite zero in the very middle, so that the ratio below is right there too.
        square: Field3 = np.full_like(gaps[0], 1e-9)
        slope: Field3 = square * np.float32(1 / min(radii) ** 2)
        for gap, radius in zip(gaps, radii, strict=True):
            part = (gap * np.float32(1 / radius)) ** 2
            square += part
            slope += part * np.float32(1 / radius**2)
        away = np.sqrt(square)
        distance = (away - 1) * away / np.sqrt(slope)  # to first order
        return box, self.soft(np.asarray(distance, np.float32))

    def paint_ellipsoid(
        self,
        centre: Point,
        radii: Point,
        hounsfield: float,
        tissue: int,
        *,
        turn: Rotation | None = None,
    ) -> None:
        """Paint an ellipsoid; see `ellipsoid` and `paint`."""
        box, share = self.ellipsoid(centre, radii, turn)
        self.paint(box, share, hounsfield, tissue)

    def tube(
        self,
        start: Vector,
        end: Vector,
        radius: float,
        end_radius: float | None = None,
    ) -> tuple[Box, Field3]:
        """Box and share of a tube with round ends; one thinner than a voxel is drawn
        wider and fainter, of equal mass.
        """
        if end_radius is None:
            end_radius = radius
        drawn = self._drawn(radius)
        drawn_end = self._drawn(end_radius)
        middle = (start + end) / 2
        half = np.abs(end - start) / 2
        box = self.around(middle, half + max(drawn, drawn_end))
        gaps = self._gaps(box, start)
        run = end - start
        length = max(float(run @ run), 1e-6)
        along = np.clip(_mix(gaps, run / length), 0, 1)
        square = np.zeros_like(along)
        for gap, step in zip(gaps, run, strict=True):
            aside = gap - along * np.float32(step)
            square += aside**2
        widening = np.float32(drawn_end - drawn)
        share = self.soft(np.sqrt(square) - (drawn + along * widening))
        mass = radius**2 + end_radius**2
        spread = self.edge**2 / 6
        drawn_mass = drawn**2 + drawn_end**2 + spread
        fainter = min(mass / drawn_mass, 1.0)
        return box, share * np.float32(fainter)

    def _gaps(self, box: Box, point: Point) -> list[Field3]:
        """How far the voxels of a box lie from a point along x, y and z."""
        places = self.places(box)
        return [
            along - np.float32(coordinate)
            for along, coordinate in zip(places, point, strict=True)
        ]

    def _drawn(self, radius: float) -> float:
        """The radius at which a soft-edged disc has the area of a sharp one; its soft
        edge adds `pi edge^2 / 12`.
        """
        square = radius**2 - self.edge**2 / 12
        thinnest = self.edge**2 / 4
        return float(np.sqrt(max(square, thinnest)))


def smooth_field(
    rng: np.random.Generator,
    canvas: Canvas,
    size_mm: float = 40.0,
) -> Field3:
    """A random field of unit variance that varies over about `size_mm`, linear between
    coarse points.
    """
    extents = canvas.grid.extent_mm
    counts = [max(2, round(extent / size_mm) + 1) for extent in extents]
    field = rng.standard_normal(counts, dtype=np.float32)
    field *= np.float32(1.8)  # interpolation lowers the variance
    for axis, count in enumerate(counts):
        size = canvas.grid.shape[axis]
        at = np.linspace(0, count - 1, size, dtype=np.float32)
        points = np.arange(count, dtype=np.float32)
        distance = np.abs(at[:, None] - points)
        weights = np.clip(1 - distance, 0, 1)
        fine = np.tensordot(weights, field, axes=(1, axis))
        field = np.moveaxis(fine, 0, axis)
    return np.ascontiguousarray(field)


def rotation_about(axis: int, angle: float) -> Rotation:
    """The rotation by `angle` (radians) about x (0), y (1) or z (2)."""
    first = (axis + 1) % 3
    second = (axis + 2) % 3
    turn = np.eye(3)
    turn[first, first] = np.cos(angle)
    turn[second, second] = np.cos(angle)
    turn[first, second] = -np.sin(angle)
    turn[second, first] = np.sin(angle)
    return turn


def _patient_coordinates(grid: Grid, pose: Pose) -> list[Field3]:
    """Fields `x, y, z` of the voxels' centres."""
    z, y, x = (axis.numpy() for axis in grid.coordinates())
    z = z[:, None, None]
    y = y[:, None]
    turn = pose.turn.astype(np.float32)
    shift = (pose.turn @ pose.shift).astype(np.float32)
    fields = []
    for axis in range(3):
        turn_x, turn_y, turn_z = turn[axis]
        in_slice = turn_x * x + turn_y * y
        along_z = turn_z * z - shift[axis]
        fields.append(in_slice + along_z)
    return fields


def _side(size: int, middle: float, half: float) -> slice:
    """Voxels among `size` that lie within `half` of `middle`, which is counted from the
    middle of the axis, in voxels.
    """
    at = middle + (size - 1) / 2
    first = int(np.ceil(at - half))
    last = int(np.floor(at + half))
    end = min(size, last + 1)
    return slice(max(0, first), max(0, end))


def _mix(parts: Sequence[Field3], weights: Vector) -> Field3:
    """Weighted sum in float32."""
    total = parts[0] * np.float32(weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += part * np.float32(weight)
    return total
