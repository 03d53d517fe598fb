"""The one image type: an array and the affine that places it in the world."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox.errors import GeometryError

Array = NDArray[Any]
Shape = tuple[int, int, int]
Spacing = tuple[float, float, float]
Steps = NDArray[np.float64]
"""Where a step along z, y, x leads in the world: rows in mm, `(3, 3)`."""

FARTHEST_MM = 1e12
LAST_ROW = (0.0, 0.0, 0.0, 1.0)
"""Of an affine, whose numbers are below the first."""


@dataclass(frozen=True, eq=False)
class Volume:
    """An array `(channel, z, y, x)` and its affine.

    affine: 4x4 float64; maps the homogeneous voxel index `(x, y, z, 1)` to RAS
    millimetres, as NIfTI does. Index order in the affine is therefore the reverse of
    the array's. remarks: what the reader of its file has to say; unit_mm: length in mm
    of the unit that its file counts in, which NIfTI files made of it keep.
    """

    array: Array
    affine: NDArray[np.float64]
    remarks: tuple[str, ...] = ()
    unit_mm: float = 1.0

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise GeometryError(
                "a volume has axes (channel, z, y, x); "
                f"this array has shape {self.array.shape}"
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise GeometryError(
                "the affine of a volume is a finite 4x4 matrix; "
                "the file's header is damaged"
            )
        if (
            np.abs(self.affine).max() > FARTHEST_MM
            or (self.affine[3] != LAST_ROW).any()
        ):
            raise GeometryError(
                "the affine of a volume leads to no place (it is projective, or its "
                "numbers are too large); repair the file's header"
            )
        if abs(np.linalg.det(self.affine[:3, :3])) < 1e-12:
            raise GeometryError(
                "the affine of a volume is singular (a spacing of 0?); "
                "repair the file's header"
            )

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    @property
    def shape(self) -> Shape:
        """Spatial size in voxels, `(z, y, x)`."""
        _, z, y, x = self.array.shape
        return int(z), int(y), int(x)

    @cached_property
    def spacing(self) -> Spacing:
        """Voxel size in mm, `(z, y, x)`."""
        return spacing_of(self.affine)

    @property
    def steps(self) -> Steps:
        """Where a step along z, y, x leads in RAS mm, a row each, `(3, 3)`."""
        return self.affine[:3, :3].T[::-1]

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000

    def with_array(self, array: Array) -> "Volume":
        """Another array on the same grid; a missing channel axis is added."""
        return replace(self, array=array if array.ndim == 4 else array[None])


def spacing_of(affine: NDArray[np.float64]) -> Spacing:
    """Voxel size in mm, `(z, y, x)`: the lengths of the affine's columns, reversed."""
    x, y, z = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(z), float(y), float(x)


def affine_from_spacing(
    spacing: Spacing, origin: Spacing = (0.0, 0.0, 0.0)
) -> NDArray[np.float64]:
    """An axis-aligned RAS affine for `spacing` and `origin`, both `(z, y, x)` in mm."""
    affine = np.diag([spacing[2], spacing[1], spacing[0], 1.0])
    affine[:3, 3] = origin[::-1]
    return affine
