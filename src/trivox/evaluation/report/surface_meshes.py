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
from trivox.volumes.volume import Array, spacing_of

LEVEL = 0.5
SHRINK = 0.5
GROW = -0.5263
PASSES = 12
"""Taubin's factors, for the pass band 1 / SHRINK + 1 / GROW = 0.1, and how often both
are applied.
"""
THIN = 2.0
COARSENING = 1.15
"""Least factor by which voxels grow when a surface has too many vertices."""
OUTLINE_MM = 3.0
LEAST_ZERO = 0.2
LEAST_ZERO_RIM = 0.6
"""Shares of all voxels, and of the outermost ones, from which zero is the background."""

CORNERS = np.array([*product((0, 1), repeat=3)])  # (8, zyx)


Affine = NDArray[np.float64]
"""4x4, maps `(x, y, z, 1)` indices to mm."""
Points = NDArray[np.float64]
"""`(n, 3)` in voxel indices `(z, y, x)`."""
Quads = NDArray[np.int64]
"""`(m, 4)` numbers of points, anticlockwise from outside."""
Mask = NDArray[np.bool_]
Share = NDArray[np.float32]
Factors = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Mesh:
    """vertices: `(n, 3)` RAS mm in `(x, y, z)`; triangles: `(m, 3)` vertex numbers,
    anticlockwise from outside.

    step_mm: edge of the voxels that it was made from.
    """

    vertices: NDArray[np.float32]
    triangles: NDArray[np.int64]
    step_mm: float


def mask_surface(mask: Array, affine: Affine, *, limit: int) -> Mesh | None:
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
        field = block_means(inside, factors)
        level = min(LEVEL, float(field.max()) / 2)
        crossed = _crossed(np.pad(field, 1) >= level)
        count = int(crossed.sum())
        if count <= limit or field.size == 1:
            break
        step *= max(COARSENING, float(np.sqrt(count / limit)))
    points, quads = surface_net(field, level=level)
    corner = np.array([start for start, _ in box])
    index = smoothed(points, quads) * factors
    index += (factors - 1) / 2 + corner
    vertices = index[:, ::-1] @ affine[:3, :3].T
    vertices += affine[:3, 3]
    return Mesh(
        vertices=vertices.astype(np.float32),
        triangles=_triangles(quads),
        step_mm=float((spacing * factors).max()),
    )


def surface_net(field: Array, *, level: float = LEVEL) -> tuple[Points, Quads]:
    """Vertices `(n, 3)` in voxel indices `(z, y, x)` and quadrilaterals `(m, 4)` of the
    surface where `field` is `level`.

    Beyond the array lies 0, so that every surface is closed. Quadrilaterals are
    anticlockwise from outside, in a world whose axes `(x, y, z)` are right-handed.
    """
    padded = np.pad(field.astype(np.float32), 1)
    inside = padded >= level
    crossed = _crossed(inside)
    number = np.full(crossed.shape, -1)
    # cell (i, j, k) lies between voxels i, j, k and i + 1, j + 1, k + 1
    cells = np.argwhere(crossed)
    number[crossed] = np.arange(len(cells))
    voxels = cells[:, None] + CORNERS  # (cell, 8, zyx)
    z, y, x = voxels.transpose(2, 0, 1)
    corners = padded[z, y, x]  # (cell, 8)
    places = _crossing_means(corners, level)
    points = cells + places - 1
    quads = [_quads(inside, number, axis) for axis in range(3)]
    return points, np.concatenate(quads)


def _crossed(inside: Mask) -> Mask:
    """The cells whose eight corners are not all on one side."""
    every = inside
    some = inside
    for axis in range(3):
        first, second = _neighbours(axis)
        every = every[first] & every[second]
        some = some[first] | some[second]
    return np.asarray(some & ~every)


def _neighbours(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where the first and the second of all pairs of neighbours along `axis` lie."""
    first = [slice(None)] * 3
    second = [slice(None)] * 3
    first[axis] = slice(None, -1)
    second[axis] = slice(1, None)
    return tuple(first), tuple(second)


def _crossing_means(corners: Share, level: float) -> Points:
    """Mean of the places `(cell, zyx)`, from 0 to 1, where the surface crosses the 12
    edges of each cell.
    """
    total = np.zeros((len(corners), 3))
    count = np.zeros((len(corners), 1))
    for axis, stride in enumerate((4, 2, 1)):
        for start in range(8):
            if start & stride:
                continue
            first = corners[:, start]
            second = corners[:, start + stride]
            crosses = (first >= level) != (second >= level)
            share = np.divide(
                level - first,
                second - first,
                out=np.zeros(len(corners), np.float32),
                where=crosses,
            )
            place = np.tile(CORNERS[start].astype(float), (len(corners), 1))
            place[:, axis] = share
            total[crosses] += place[crosses]
            count[crosses] += 1
    return np.asarray(total / count)


def _quads(inside: Mask, number: NDArray[np.int64], axis: int) -> Quads:
    """A quadrilateral of the four cells around each pair of neighbours along `axis`
    that the surface parts.
    """
    first, second = _neighbours(axis)
    at = np.argwhere(inside[first] != inside[second])
    one = np.roll([1, 0, 0], axis + 1)
    other = np.roll([1, 0, 0], axis + 2)
    around = [
        at - one - other,
        at - other,
        at,
        at - one,
    ]
    quads = np.stack([number[tuple(cell.T)] for cell in around], axis=1)
    # the surface faces towards higher indices; (z, y, x) is left-handed, so turn these
    leaving = inside[tuple(at.T)]
    turned = quads[leaving]
    quads[leaving] = turned[:, ::-1]
    return quads


def smoothed(points: Points, quads: Quads, *, passes: int = PASSES) -> Points:
    """Taubin's smoothing: each point towards the mean of its neighbours, then a little
    further back.

    points: as `surface_net` returns them. Parts at most two voxels thick, which would
    shrink away, are drawn out again to the voxels that they come from.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    starts = quads.ravel()
    ends = np.roll(quads, 1, axis=1).ravel()
    rows = np.concatenate([starts, ends])
    columns = np.concatenate([ends, starts])
    ones = np.ones(len(rows), np.float32)
    size = len(points)
    weights = csr_array((ones, (rows, columns)), shape=(size, size))
    # an edge counts once, however many faces share it
    weights.data[:] = 1
    degree: Points = np.asarray(weights.sum(axis=1))[:, None]
    corners = np.floor(points) + 0.5  # of the voxels: the middles of the cells
    for factor in (SHRINK, GROW) * passes:
        neighbours = np.asarray(weights @ points) / degree
        points = points + factor * (neighbours - points)
    count, part = connected_components(weights, directed=False)
    return _drawn_out(points, corners, part, count)


def _drawn_out(
    points: Points,
    corners: Points,
    part: NDArray[np.int32],
    count: int,
) -> Points:
    """Thin parts stretched along each axis to the box of their voxels."""
    low, high = _part_boxes(points, part, count)
    first, last = _part_boxes(corners, part, count)
    thin = (last - first).min(axis=1, keepdims=True) <= THIN
    drawn = np.maximum(high - low, 1e-9)
    stretch = np.where(thin, (last - first) / drawn, 1.0)
    middle = (low + high) / 2
    aim = np.where(thin, (first + last) / 2, middle)
    from_middle = points - middle[part]
    return np.asarray(from_middle * stretch[part] + aim[part])


def _part_boxes(
    points: Points, part: NDArray[np.int32], count: int
) -> tuple[Points, Points]:
    """Lowest and highest corner `(part, zyx)` of the points of each part."""
    low = np.full((count, 3), np.inf)
    high = np.full((count, 3), -np.inf)
    np.minimum.at(low, part, points)
    np.maximum.at(high, part, points)
    return low, high


def block_means(mask: Array, factors: Factors) -> Share:
    """Share of true voxels in blocks of `factors` `(z, y, x)` voxels; beyond the array
    lies false.
    """
    if (factors == 1).all():
        return mask.astype(np.float32)
    sizes = np.array(mask.shape)
    counts = -(-sizes // factors)
    missing = counts * factors - sizes
    padded = np.pad(mask, [(0, voxels) for voxels in missing])
    blocked_shape = np.stack([counts, factors], axis=1)
    blocks = padded.reshape(blocked_shape.ravel())
    return np.asarray(blocks.mean(axis=(1, 3, 5), dtype=np.float32))


def _triangles(quads: Quads) -> NDArray[np.int64]:
    first = quads[:, [0, 1, 2]]
    second = quads[:, [0, 2, 3]]
    return np.concatenate([first, second])


def body_surface(image: Array, affine: Affine, *, limit: int = 4000) -> Mesh | None:
    """The surface of what is not zero in `(c, z, y, x)`, holes filled, the largest part
    only.

    None where zero is not the background: less than a fifth of all voxels, or than
    three fifths of the outermost ones.
    """
    from scipy.ndimage import binary_fill_holes, label

    present = image[0] != 0
    for channel in image[1:]:
        present |= channel != 0
    if not present.any() or not _has_background(present):
        return None
    factors = np.array([max(1, round(OUTLINE_MM / mm)) for mm in spacing_of(affine)])
    coarse = block_means(present, factors) >= LEVEL
    parts, count = label(binary_fill_holes(coarse))
    if not count:
        return None
    sizes = np.bincount(parts.ravel())
    largest = parts == sizes[1:].argmax() + 1
    axes = affine[:3, :3]
    joined = factors[::-1]  # (x, y, z)
    grid = affine.copy()
    grid[:3, :3] = axes * joined
    grid[:3, 3] += axes @ (joined - 1) / 2
    return mask_surface(largest, grid, limit=limit)


def _has_background(present: Array) -> bool:
    """Whether enough voxels are zero, and enough of the outermost ones."""
    faces = []
    for axis in range(3):
        faces.append(np.take(present, 0, axis=axis).ravel())
        faces.append(np.take(present, -1, axis=axis).ravel())
    rim = np.concatenate(faces)
    zero = 1 - present.mean()
    zero_rim = 1 - rim.mean()
    return bool(zero >= LEAST_ZERO and zero_rim >= LEAST_ZERO_RIM)
