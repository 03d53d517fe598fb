"""How voxels stand in the world: at right angles, or sheared.

All that is measured of a mask depends on the place of its voxels alone: volumes on the
determinant of the steps along the axes, areas on their cofactors, distances on the
steps themselves. A turned grid measures as a straight one of the same spacing.
"""

import numpy as np
from numpy.typing import NDArray

from trivox.volumes.volume import Spacing, Steps

Lattice = Spacing | Steps
"""Spacing in mm `(z, y, x)`, or the steps in the world along z, y, x: rows in mm, `(3,
3)`.
"""
UPRIGHT = 1e-5
"""Cosine between axes that counts as a right angle."""


def steps_of(lattice: Lattice) -> Steps:
    """The step along each axis, rows in mm, `(3, 3)`."""
    steps = np.asarray(lattice, dtype=np.float64)
    return np.diag(steps) if steps.ndim == 1 else steps


def edges_of(lattice: Lattice) -> Spacing:
    """Lengths of a voxel's edges in mm, `(z, y, x)`."""
    z, y, x = np.linalg.norm(steps_of(lattice), axis=1).tolist()
    return z, y, x


def upright_spacing(lattice: Lattice) -> Spacing | None:
    """The spacing where the axes stand at right angles; None of a sheared grid."""
    edges = edges_of(lattice)
    directions = steps_of(lattice) / np.array(edges)[:, None]
    cosines = directions @ directions.T - np.eye(3)
    return edges if np.abs(cosines).max() <= UPRIGHT else None


def voxel_mm3(lattice: Lattice) -> float:
    """Volume of a voxel in mm³."""
    return float(abs(np.linalg.det(steps_of(lattice))))


def cofactors(lattice: Lattice) -> NDArray[np.float64]:
    """What turns an area vector `(z, y, x)` in voxels, a row, into one in mm²."""
    steps = steps_of(lattice)
    return np.asarray(np.linalg.det(steps) * np.linalg.inv(steps).T)


def longest_diagonal(lattice: Lattice, shape: tuple[int, ...]) -> float:
    """The longest diagonal of an image of so many voxels `(z, y, x)`, in mm."""
    signs = np.array([[1, 1, 1], [1, 1, -1], [1, -1, 1], [1, -1, -1]])
    corners = (signs * np.array(shape)) @ steps_of(lattice)
    return float(np.linalg.norm(corners, axis=1).max())
