"""Grids: whether two agree, and the closest axis-aligned (canonical) orientation and
back.
"""

from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from trivox.errors import GeometryError
from trivox.volumes.volume import Array, Shape, Spacing, Steps, Volume, spacing_of


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
    z, y, x = shape
    corners = np.array(list(product((0, x - 1), (0, y - 1), (0, z - 1), (1,))))
    apart = (corners @ (affine - other_affine).T)[:, :3]
    distance = float(np.linalg.norm(apart, axis=1).max())
    if distance <= 0.1 * min(spacing_of(affine)):
        return None
    spacings = [
        np.round(spacing_of(grid), 3).tolist() for grid in (affine, other_affine)
    ]
    return (
        f"grids lie up to {distance:.3g} mm apart "
        f"(spacings {spacings[0]} and {spacings[1]} mm, z y x)"
    )


Lattice = Spacing | Steps
"""Spacing in mm `(z, y, x)`, or the steps in the world along z, y, x: rows in mm, `(3,
3)`.
"""
UPRIGHT = 1e-5
"""Cosine between axes that counts as a right angle."""


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
        return self._flipped(array)

    def undo(self, array: Array) -> Array:
        """The inverse of `apply`; a view, no copy."""
        axes = np.argsort(self.axes)
        return self._flipped(array).transpose(0, *(int(axis) + 1 for axis in axes))

    def _flipped(self, array: Array) -> Array:
        steps = [slice(None, None, -1 if flip else 1) for flip in self.flips]
        return array[:, *steps]


AS_STORED = Orientation((0, 1, 2), (False, False, False))
"""Leaves the axes as they are."""


def canonical_orientation(affine: NDArray[np.float64]) -> Orientation:
    """The orientation that brings a grid closest to RAS, found by the best assignment
    of array axes to world axes.
    """
    return orientation_towards(affine, np.eye(4))


def orientation_towards(
    affine: NDArray[np.float64], target: NDArray[np.float64]
) -> Orientation:
    """The orientation that brings a grid closest to the axes of a target grid, which
    take the world's place in what `Orientation` says.
    """
    directions = np.linalg.solve(_directions(target), _directions(affine))
    # target (x, y, z) by index (x, y, z)
    world, index = linear_sum_assignment(-np.abs(directions))
    source = {int(w): int(i) for w, i in zip(world, index, strict=True)}
    axes = tuple(2 - source[w] for w in (2, 1, 0))
    flips = tuple(bool(directions[w, source[w]] < 0) for w in (2, 1, 0))
    return Orientation(axes, flips)  # type: ignore[arg-type]


def _directions(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit vectors along x, y, z, a column each."""
    lengths = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return np.asarray(affine[:3, :3] / lengths)


def turned_onto(
    volume: Volume, shape: Shape, affine: NDArray[np.float64]
) -> Volume | None:
    """`volume` with its axes in the order of a grid that has the same voxels; None if
    there is no such order.
    """
    turned = reorient(volume, orientation_towards(volume.affine, affine))
    if describe_mismatch(turned.shape, turned.affine, shape, affine):
        return None
    return turned


def describe_other_voxels(
    shape: Shape,
    affine: NDArray[np.float64],
    other_shape: Shape,
    other_affine: NDArray[np.float64],
) -> str | None:
    """Say how two grids differ, or None where they have the same voxels, in whatever
    order of axes.
    """
    mismatch = describe_mismatch(shape, affine, other_shape, other_affine)
    if mismatch is None:
        return None
    nothing = np.broadcast_to(np.uint8(0), (1, *other_shape))
    turned = turned_onto(Volume(nothing, other_affine), shape, affine)
    return mismatch if turned is None else None


def on_grid_of(first: Volume, second: Volume, *, where: str) -> Volume:
    """`second` with its axes in the order of `first`; raises `GeometryError` naming
    `where` unless both have the same voxels.
    """
    mismatch = describe_mismatch(first.shape, first.affine, second.shape, second.affine)
    if mismatch is None:
        return second
    turned = turned_onto(second, first.shape, first.affine)
    if turned is None:
        raise GeometryError(
            f"{where}: {mismatch}; resample them to one grid, "
            "or run 'trivox check' for the list"
        )
    return turned


def reorient(volume: Volume, orientation: Orientation) -> Volume:
    """`volume` with its axes reordered and flipped; the affine follows, so world
    positions stay.
    """
    array = orientation.apply(volume.array)
    affine = volume.affine.copy()
    for canonical, axis in enumerate(orientation.axes):  # canonical z, y, x
        column = volume.affine[:3, 2 - axis]
        flip = orientation.flips[canonical]
        affine[:3, 2 - canonical] = -column if flip else column
        if flip:
            affine[:3, 3] += column * (volume.shape[axis] - 1)
    return replace(volume, array=array, affine=affine)


# -- how voxels stand in the world ----------------------------------------------------
# All that is measured of a mask depends on the place of its voxels alone: volumes on the
# determinant of the steps along the axes, areas on their cofactors, distances on the
# steps themselves. A turned grid measures as a straight one of the same spacing.


def steps_of(lattice: Lattice) -> Steps:
    """The step along each axis, rows in mm, `(3, 3)`."""
    steps = np.asarray(lattice, dtype=np.float64)
    if steps.ndim == 1:
        return np.diag(steps)
    return steps


def edges_of(lattice: Lattice) -> Spacing:
    """Lengths of a voxel's edges in mm, `(z, y, x)`."""
    z, y, x = np.linalg.norm(steps_of(lattice), axis=1).tolist()
    return z, y, x


def upright_spacing(lattice: Lattice) -> Spacing | None:
    """The spacing where the axes stand at right angles; None of a sheared grid."""
    edges = edges_of(lattice)
    lengths = np.array(edges)
    directions = steps_of(lattice) / lengths[:, None]
    cosines = directions @ directions.T
    if np.abs(cosines - np.eye(3)).max() > UPRIGHT:
        return None
    return edges


def voxel_mm3(lattice: Lattice) -> float:
    """Volume of a voxel in mm³."""
    edges = upright_spacing(lattice)
    if edges is not None:
        return float(np.prod(edges))
    steps = steps_of(lattice)
    return float(abs(np.linalg.det(steps)))


def cofactors(lattice: Lattice) -> NDArray[np.float64]:
    """What turns an area vector `(z, y, x)` in voxels, a row, into one in mm²."""
    edges = upright_spacing(lattice)
    if edges is not None:
        z, y, x = edges
        return np.diag([y * x, z * x, z * y])
    steps = steps_of(lattice)
    inverse = np.linalg.inv(steps)
    return np.asarray(np.linalg.det(steps) * inverse.T)


def longest_diagonal(lattice: Lattice, shape: tuple[int, ...]) -> float:
    """The longest diagonal of an image of so many voxels `(z, y, x)`, in mm."""
    signs = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1]])
    corners = signs * np.array(shape)
    diagonals = corners @ steps_of(lattice)
    lengths = np.linalg.norm(diagonals, axis=1)
    return float(lengths.max())
