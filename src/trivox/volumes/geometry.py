"""Grids: whether two agree, and the closest axis-aligned (canonical) orientation and
back.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivox.errors import GeometryError
from trivox.volumes.volume import Array, Shape, Volume


def describe_mismatch(
    shape: Shape,
    affine: NDArray[np.float64],
    other_shape: Shape,
    other_affine: NDArray[np.float64],
) -> str | None:
    """Say how two grids differ, or None where they agree.

    Tolerance: no corner voxel may be further apart than 0.1 of the smallest voxel edge;
    header rounding stays far below.
    """
    if shape != other_shape:
        return f"sizes differ: {shape} and {other_shape} voxels (z, y, x)"
    size = np.array(shape[::-1], dtype=float) - 1
    corners = (
        np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)]) * size
    )
    corners = np.concatenate([corners, np.ones((8, 1))], axis=1)
    distance = float(
        np.linalg.norm((corners @ (affine - other_affine).T)[:, :3], axis=1).max()
    )
    edge = float(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)).min())
    if distance <= 0.1 * edge:
        return None
    spacing, other = (
        np.sqrt((a[:3, :3] ** 2).sum(axis=0))[::-1].round(3).tolist()
        for a in (affine, other_affine)
    )
    return f"grids lie up to {distance:.3g} mm apart (spacings {spacing} and {other} mm, z y x)"


def require_same_grid(first: Volume, second: Volume, *, where: str) -> None:
    """Raise `GeometryError` naming `where` unless both volumes lie on one grid."""
    mismatch = describe_mismatch(first.shape, first.affine, second.shape, second.affine)
    if mismatch:
        raise GeometryError(
            f"{where}: {mismatch}; resample them to one grid, or run 'trivox check' for the list"
        )


@dataclass(frozen=True)
class Orientation:
    """How the axes of a source array become canonical ones.

    axes: for each canonical axis (z, y, x) the source axis it comes from; flips: which
    canonical axes run backwards. Canonical means that increasing x, y, z point most
    nearly to right, anterior, superior.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def apply(self, array: Array) -> Array:
        """Reorder and flip `(c, z, y, x)`; a view, no copy."""
        array = array.transpose(0, *(axis + 1 for axis in self.axes))
        return array[
            (
                slice(None),
                *(slice(None, None, -1 if flip else 1) for flip in self.flips),
            )
        ]

    def undo(self, array: Array) -> Array:
        """The inverse of `apply`; a view, no copy."""
        array = array[
            (
                slice(None),
                *(slice(None, None, -1 if flip else 1) for flip in self.flips),
            )
        ]
        return array.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.axes)))


def canonical_orientation(affine: NDArray[np.float64]) -> Orientation:
    """The orientation that brings a grid closest to RAS, found by the best assignment
    of array axes to world axes.
    """
    from scipy.optimize import linear_sum_assignment

    directions = affine[:3, :3] / np.sqrt(
        (affine[:3, :3] ** 2).sum(axis=0)
    )  # world (x, y, z) by index (x, y, z)
    world, index = linear_sum_assignment(-np.abs(directions))
    source = {int(w): int(i) for w, i in zip(world, index, strict=True)}
    axes = tuple(2 - source[w] for w in (2, 1, 0))
    flips = tuple(bool(directions[w, source[w]] < 0) for w in (2, 1, 0))
    return Orientation(axes, flips)  # type: ignore[arg-type]


def reorient(volume: Volume, orientation: Orientation) -> Volume:
    """`volume` with its axes reordered and flipped; the affine follows, so world
    positions stay.
    """
    array = orientation.apply(volume.array)
    affine = volume.affine.copy()
    columns = [
        volume.affine[:3, 2 - axis] for axis in orientation.axes
    ]  # canonical z, y, x
    sizes = [volume.shape[axis] for axis in orientation.axes]
    for column, size, flip, target in zip(
        columns, sizes, orientation.flips, (2, 1, 0), strict=True
    ):
        affine[:3, target] = -column if flip else column
        if flip:
            affine[:3, 3] += column * (size - 1)
    return Volume(array, affine)
