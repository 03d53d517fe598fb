"""Areas of the surface elements of a binary mask: marching cubes of the 256 corner
patterns of a 2x2x2 neighbourhood.

The surface crosses each cube edge between an inside and an outside corner at its
middle. Three choices make the result unique, and equal to DeepMind's `surface-distance`
and to MONAI's `use_subvoxels` (tests/oracle holds it to 1e-6):

1. On a face whose inside corners lie diagonally, each inside corner is cut off on its
   own.
2. A pattern with more than four inside corners has the surface of its complement.
3. Polygons that are not flat are cut into the triangles with the largest total area at
   spacing 1.
"""

from collections.abc import Iterator
from functools import cache
from itertools import product

import numpy as np
from numpy.typing import NDArray

from trivox.volumes.volume import Spacing

Point = tuple[int, int, int]
Vector = tuple[float, float, float]
CORNERS: tuple[Point, ...] = tuple(
    (z, y, x) for z in (0, 1) for y in (0, 1) for x in (0, 1)
)
"""Offset `(z, y, x)` of the corner that bit i of a neighbourhood code stands for."""


def element_areas(spacing: Spacing) -> NDArray[np.float64]:
    """Area in mm² of the surface element of each neighbourhood code `(256,)`; spacing
    in mm `(z, y, x)`.
    """
    z, y, x = spacing
    normals = _unit_normals() * np.array([y * x, z * x, z * y])
    return np.asarray(np.sqrt((normals**2).sum(axis=2)).sum(axis=1))


@cache
def _unit_normals() -> NDArray[np.float64]:
    """Area vectors of the triangles of each code at spacing 1, `(256, 4 triangles,
    zyx)`, padded with zeros.
    """
    normals = np.zeros((256, 4, 3))
    for code in range(1, 255):
        inside = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
        if len(inside) <= 4:
            vectors = [
                vector
                for polygon in _polygons(inside)
                for vector in _largest_triangulation(polygon)
            ]
            normals[code, : len(vectors)] = normals[255 - code, : len(vectors)] = (
                vectors
            )
    four = [code for code in range(256) if code.bit_count() == 4]
    assert np.allclose(normals[four], normals[[255 - code for code in four]]), (
        "choice 2 leaves no freedom"
    )
    return normals


def _polygons(inside: set[Point]) -> Iterator[list[Point]]:
    """Closed polygons of the surface around the `inside` corners; points are edge
    middles in half voxels.
    """
    neighbours: dict[Point, list[Point]] = {}
    for a, b in (
        segment for ring in _faces() for segment in _face_segments(ring, inside)
    ):
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)
    while neighbours:
        polygon = [min(neighbours)]
        while onward := [
            point for point in neighbours.pop(polygon[-1]) if point in neighbours
        ]:
            polygon.append(onward[0])
        yield polygon


def _faces() -> Iterator[list[Point]]:
    """The corners of each face of the cube in circular order."""
    for axis, side in product(range(3), (0, 1)):
        ring = [(0, 0), (0, 1), (1, 1), (1, 0)]
        yield [(*pair[:axis], side, *pair[axis:]) for pair in ring]  # type: ignore[misc]


def _face_segments(
    ring: list[Point], inside: set[Point]
) -> Iterator[tuple[Point, Point]]:
    """Where the surface crosses a face."""
    middles = [_sum(ring[i], ring[(i + 1) % 4]) for i in range(4)]
    crossed = [
        i for i in range(4) if (ring[i] in inside) != (ring[(i + 1) % 4] in inside)
    ]
    if len(crossed) == 2:
        yield middles[crossed[0]], middles[crossed[1]]
    elif crossed:  # diagonal: the middles on both sides of each inside corner
        yield from ((middles[i - 1], middles[i]) for i in range(4) if ring[i] in inside)


def _largest_triangulation(polygon: list[Point]) -> list[Vector]:
    """Area vectors of the triangles whose areas add up to most."""
    cuts = (
        [_area_vector(*(polygon[i] for i in triangle)) for triangle in cut]
        for cut in _cuts(0, len(polygon) - 1)
    )
    return max(
        cuts,
        key=lambda vectors: sum(
            sum(v * v for v in vector) ** 0.5 for vector in vectors
        ),
    )


def _cuts(first: int, last: int) -> Iterator[list[Point]]:
    """All ways to cut the polygon of the vertices first..last into triangles (triples
    of vertex numbers).
    """
    if last - first < 2:
        yield []
    for middle in range(first + 1, last):
        for left, right in product(_cuts(first, middle), _cuts(middle, last)):
            yield [*left, (first, middle, last), *right]


def _area_vector(a: Point, b: Point, c: Point) -> Vector:
    """Normal of a triangle in half voxels, as long as its area in voxels."""
    p, q, r = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    s, t, u = c[0] - a[0], c[1] - a[1], c[2] - a[2]
    return (q * u - r * t) / 8, (r * s - p * u) / 8, (p * t - q * s) / 8


def _sum(a: Point, b: Point) -> Point:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
