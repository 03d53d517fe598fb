"""Smooth closed surfaces of masks, as triangles in world millimetres, for looking at.

Naive surface nets (Gibson 1998, "Constrained Elastic Surface Nets"): a vertex in each
2x2x2 cell that the surface passes, a quadrilateral for each pair of neighbouring voxels
that it parts; then Taubin's smoothing (1995, "A signal processing approach to fair
surface design"), which takes the steps out and keeps the volume.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.reading import nonzero_box
from trivox.volumes.volume import Array, Shape, spacing_of

LEVEL = 0.5
SHRINK, GROW, PASSES = 0.5, -0.5263, 12
"""Taubin's factors, for the pass band 1 / SHRINK + 1 / GROW = 0.1, and how often both
are applied.
"""
THIN = 2.0
COARSENING = 1.15
"""Least factor by which voxels grow when a surface has too many vertices."""
OUTLINE_MM = 3.0
LEAST_ZERO, LEAST_ZERO_RIM = 0.2, 0.6

CORNERS = np.array([*product((0, 1), repeat=3)])  # (8, zyx)


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices: `(n, 3)` RAS mm in `(x, y, z)`; triangles: `(m, 3)` vertex numbers,
    anticlockwise from outside.

    step_mm: edge of the voxels that it was made from.
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int64]
    step_mm: float


def mask_surface(
    mask: Array, affine: NDArray[np.float64], *, limit: int
) -> Mesh | None:
    """The surface of a mask `(z, y, x)` with at most `limit` vertices; None if the mask
    is empty.

    affine: 4x4, maps `(x, y, z, 1)` indices to mm. Where there are too many vertices,
    voxels are joined to larger ones; what is too thin for half-full voxels is then kept
    at a lower level, and drawn somewhat too thick.
    """
    if not mask.any():
        return None
    box = nonzero_box(mask[None])
    inside = mask[tuple(slice(*edge) for edge in box)]
    spacing = np.array(spacing_of(affine))  # (z, y, x)
    step = float(spacing.min())
    while True:
        factors = np.maximum(1, np.round(step / spacing)).astype(int)
        field = block_means(inside, (int(factors[0]), int(factors[1]), int(factors[2])))
        level = min(LEVEL, float(field.max()) / 2)
        count = int(_crossed(np.pad(field, 1) >= level).sum())
        if count <= limit or min(field.shape) == max(field.shape) == 1:
            break
        step *= max(COARSENING, float(np.sqrt(count / limit)))
    points, quads = surface_net(field, level=level)
    index = (
        smoothed(points, quads) * factors
        + (factors - 1) / 2
        + [start for start, _ in box]
    )
    vertices = index[:, ::-1] @ affine[:3, :3].T + affine[:3, 3]
    return Mesh(
        vertices.astype(np.float32), _triangles(quads), float((spacing * factors).max())
    )


def surface_net(
    field: Array, *, level: float = LEVEL
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices `(n, 3)` in voxel indices `(z, y, x)` and quadrilaterals `(m, 4)` of the
    surface where `field` is `level`.

    Beyond the array lies 0, so that every surface is closed. Quadrilaterals are
    anticlockwise from outside, in a world whose axes `(x, y, z)` are right-handed.
    """
    padded = np.pad(field.astype(np.float32), 1)
    inside = padded >= level
    crossed = _crossed(inside)
    number = np.full(crossed.shape, -1)
    cells = np.argwhere(
        crossed
    )  # cell (i, j, k) lies between voxels i, j, k and i + 1, j + 1, k + 1
    number[crossed] = np.arange(len(cells))
    corners = padded[tuple((cells[:, None] + CORNERS).transpose(2, 0, 1))]  # (cell, 8)
    return cells + _crossing_means(corners, level) - 1, np.concatenate(
        [_quads(inside, number, a) for a in range(3)]
    )


def _crossed(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The cells whose eight corners are not all on one side."""
    lower, upper = inside, inside
    for axis in range(3):
        first, second = (
            (slice(None),) * axis + (slice(None, -1),),
            (slice(None),) * axis + (slice(1, None),),
        )
        lower, upper = lower[first] & lower[second], upper[first] | upper[second]
    return np.asarray(upper & ~lower)


def _crossing_means(corners: NDArray[np.float32], level: float) -> NDArray[np.float64]:
    """Mean of the places `(cell, zyx)`, from 0 to 1, where the surface crosses the 12
    edges of each cell.
    """
    total, count = np.zeros((len(corners), 3)), np.zeros((len(corners), 1))
    for axis, stride in enumerate((4, 2, 1)):
        for start in (i for i in range(8) if not i & stride):
            first, second = corners[:, start], corners[:, start + stride]
            crosses = (first >= level) != (second >= level)
            share = np.divide(
                level - first,
                second - first,
                out=np.zeros(len(corners), np.float32),
                where=crosses,
            )
            place = np.tile(CORNERS[start].astype(float), (len(corners), 1))
            place[:, axis] = share
            total += place * crosses[:, None]
            count += crosses[:, None]
    return np.asarray(total / count)


def _quads(
    inside: NDArray[np.bool_], number: NDArray[np.int64], axis: int
) -> NDArray[np.int64]:
    """A quadrilateral of the four cells around each pair of neighbours along `axis`
    that the surface parts.
    """
    pairs = [
        (slice(None),) * axis + (slice(*edge),) for edge in ((None, -1), (1, None))
    ]
    at = np.argwhere(inside[pairs[0]] != inside[pairs[1]])
    one, other = (np.eye(3, dtype=int)[(axis + i) % 3] for i in (1, 2))
    around = [at - one - other, at - other, at, at - one]
    quads = np.stack([number[tuple(cell.T)] for cell in around], axis=1)
    leaving = inside[
        tuple(at.T)
    ]  # the surface faces towards higher indices; (z, y, x) is left-handed, so turn these
    quads[leaving] = quads[leaving][:, ::-1]
    return quads


def smoothed(
    points: NDArray[np.float64], quads: NDArray[np.int64], *, passes: int = PASSES
) -> NDArray[np.float64]:
    """Taubin's smoothing: each point towards the mean of its neighbours, then a little
    further back.

    points: as `surface_net` returns them. Parts at most two voxels thick, which would
    shrink away, are drawn out again to the voxels that they come from.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    ends = np.concatenate([quads, np.roll(quads, 1, axis=1)]).reshape(2, -1)
    both = np.concatenate([ends, ends[::-1]], axis=1)
    weights = csr_array(
        (np.ones(both.shape[1], np.float32), (both[0], both[1])),
        shape=(len(points),) * 2,
    )
    weights.data[:] = 1  # an edge counts once, however many faces share it
    degree = np.asarray(weights.sum(axis=1)).reshape(-1, 1)
    corners = np.floor(points) + 0.5  # of the voxels: the middles of the cells
    for factor in (SHRINK, GROW) * passes:
        points = points + factor * (weights @ points / degree - points)
    count, part = connected_components(weights, directed=False)
    return _drawn_out(points, corners, part, count)


def _drawn_out(
    points: NDArray[np.float64],
    corners: NDArray[np.float64],
    part: NDArray[np.int32],
    count: int,
) -> NDArray[np.float64]:
    """Thin parts stretched along each axis to the box of their voxels."""
    (low, high), (first, last) = (
        _part_boxes(array, part, count) for array in (points, corners)
    )
    thin = (last - first).min(axis=1) <= THIN
    stretch = np.where(
        thin[:, None], (last - first) / np.maximum(high - low, 1e-9), 1.0
    )
    middle, aim = (
        (low + high) / 2,
        np.where(thin[:, None], (first + last) / 2, (low + high) / 2),
    )
    return np.asarray((points - middle[part]) * stretch[part] + aim[part])


def _part_boxes(
    points: NDArray[np.float64], part: NDArray[np.int32], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(low, part, points)
    np.maximum.at(high, part, points)
    return low, high


def block_means(mask: Array, factors: Shape) -> NDArray[np.float32]:
    """Share of true voxels in blocks of `factors` voxels; beyond the array lies false."""
    if factors == (1, 1, 1):
        return mask.astype(np.float32)
    padded = np.pad(
        mask,
        [(0, -size % factor) for size, factor in zip(mask.shape, factors, strict=True)],
    )
    z, y, x = (
        size // factor for size, factor in zip(padded.shape, factors, strict=True)
    )
    blocks = padded.reshape(z, factors[0], y, factors[1], x, factors[2])
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float32))


def _triangles(quads: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])


def body_surface(
    image: Array, affine: NDArray[np.float64], *, limit: int = 4000
) -> Mesh | None:
    """The surface of what is not zero in `(c, z, y, x)`, holes filled, the largest part
    only.

    None where zero is not the background: less than a fifth of all voxels, or than
    three fifths of the outermost ones.
    """
    from scipy.ndimage import binary_fill_holes, label

    present = image[0] != 0
    for channel in image[1:]:
        present |= channel != 0
    faces = [np.take(present, end, axis=axis) for axis in range(3) for end in (0, -1)]
    rim = np.concatenate([face.ravel() for face in faces])
    if (
        present.mean() > 1 - LEAST_ZERO
        or rim.mean() > 1 - LEAST_ZERO_RIM
        or not present.any()
    ):
        return None
    z, y, x = (max(1, round(OUTLINE_MM / mm)) for mm in spacing_of(affine))
    coarse = binary_fill_holes(block_means(present, (z, y, x)) >= LEVEL)
    parts, count = label(coarse)
    if not count:
        return None
    largest = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    grid = affine @ np.diag([x, y, z, 1.0])
    grid[:3, 3] += affine[:3, :3] @ (np.array([x, y, z]) - 1) / 2
    return mask_surface(largest, grid, limit=limit)
