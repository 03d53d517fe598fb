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
Box = tuple[slice, slice, slice]
EVERYWHERE: Box = (slice(None), slice(None), slice(None))


class Pose(NamedTuple):
    """How the patient lies: patient coordinates = `turn` @ (grid coordinates -
    `shift`).
    """

    turn: NDArray[np.float64]
    shift: Vector


class Canvas:
    """HU and tissue of each voxel, and where its centre is in the patient's own
    coordinates (mm, `(z, y, x)` arrays).
    """

    def __init__(self, grid: Grid, pose: Pose, *, hounsfield: float) -> None:
        self.grid, self.pose = grid, pose
        self.edge = float(np.mean(grid.spacing))
        self.hounsfield = np.full(grid.shape, hounsfield, np.float32)
        self.tissues = np.zeros(grid.shape, np.uint8)
        along = [axis.numpy() for axis in grid.coordinates()]
        z, y, x = along[0][:, None, None], along[1][:, None], along[2]
        offset = pose.turn @ pose.shift
        self.x, self.y, self.z = (
            (np.float32(row[0]) * x + np.float32(row[1]) * y)
            + (np.float32(row[2]) * z - np.float32(shift))
            for row, shift in zip(pose.turn, offset, strict=True)
        )

    def around(
        self, centre: Sequence[float] | Vector, reach: Sequence[float] | Vector
    ) -> Box:
        """Voxels of the grid that hold the patient's box `centre` +- `reach`, a voxel
        more for the soft edge.
        """
        middle = (
            self.pose.turn.T @ np.asarray(centre, float)
            + self.pose.shift
            - np.array(self.grid.centre_mm)
        )
        half = np.abs(self.pose.turn.T) @ (np.asarray(reach, float) + self.edge)
        parts = []
        for axis, (size, step) in enumerate(
            zip(self.grid.shape, self.grid.spacing, strict=True)
        ):
            at, wide = middle[2 - axis] / step + (size - 1) / 2, half[2 - axis] / step
            parts.append(
                slice(
                    max(0, int(np.ceil(at - wide))),
                    max(0, min(size, int(np.floor(at + wide)) + 1)),
                )
            )
        return parts[0], parts[1], parts[2]

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
        self, box: Box, share: Field3, hounsfield: float | Field3, tissue: int | None
    ) -> None:
        """Mix a tissue in: its share of the voxel displaces what is there.

        tissue: None leaves the names as they are.
        """
        if share.size == 0:
            return
        under = self.hounsfield[box]
        under += share * (np.asarray(hounsfield, np.float32) - under)
        if tissue is not None:
            self.tissues[box][share > 0.5] = tissue

    # -- shapes ------------------------------------------------------------------------
    def ellipsoid(
        self,
        centre: Sequence[float] | Vector,
        radii: Sequence[float] | Vector,
        turn: NDArray[np.float64] | None = None,
    ) -> tuple[Box, Field3]:
        """Box and share of an ellipsoid, turned by the rotation `turn` (its own axes as
        rows).
        """
        box = self.around(
            centre, radii if turn is None else np.full(3, float(np.max(radii)))
        )
        gaps = [
            along - np.float32(middle)
            for along, middle in zip(self.places(box), centre, strict=True)
        ]
        square: Field3 = np.full_like(gaps[0], 1e-9)
        slope: Field3 = square * np.float32(
            1 / min(radii) ** 2
        )  # so that their ratio is right in the very middle too
        for axis, radius in enumerate(radii):
            along = gaps[axis] if turn is None else _mix(gaps, turn[axis])
            share = (along * np.float32(1 / radius)) ** 2
            square += share
            slope += share * np.float32(1 / radius**2)
        away = np.sqrt(square)
        distance = np.asarray(
            (away - 1) * away / np.sqrt(slope), np.float32
        )  # to first order
        return box, self.soft(distance)

    def tube(
        self, start: Vector, end: Vector, radius: float, end_radius: float | None = None
    ) -> tuple[Box, Field3]:
        """Box and share of a tube with round ends; one thinner than a voxel is drawn
        wider and fainter, of equal mass.
        """
        last = radius if end_radius is None else end_radius
        drawn, drawn_last = self._drawn(radius), self._drawn(last)
        box = self.around(
            (start + end) / 2, np.abs(end - start) / 2 + max(drawn, drawn_last)
        )
        gaps = [
            along - np.float32(first)
            for along, first in zip(self.places(box), start, strict=True)
        ]
        run = end - start
        along = np.clip(_mix(gaps, run / max(float(run @ run), 1e-6)), 0, 1)
        square = sum(
            (gap - along * np.float32(step)) ** 2
            for gap, step in zip(gaps, run, strict=True)
        )
        share = self.soft(
            np.sqrt(square) - (drawn + along * np.float32(drawn_last - drawn))
        )
        spread = self.edge**2 / 6
        fainter = (radius**2 + last**2) / (drawn**2 + drawn_last**2 + spread)
        return box, share * np.float32(min(fainter, 1.0))

    def _drawn(self, radius: float) -> float:
        """The radius at which a soft-edged disc has the area of a sharp one; its soft
        edge adds `pi edge^2 / 12`.
        """
        return float(np.sqrt(max(radius**2 - self.edge**2 / 12, self.edge**2 / 4)))


def _mix(parts: Sequence[Field3], weights: NDArray[np.float64]) -> Field3:
    """Weighted sum in float32."""
    total = parts[0] * np.float32(weights[0])
    for part, weight in zip(parts[1:], weights[1:], strict=True):
        total += part * np.float32(weight)
    return total
