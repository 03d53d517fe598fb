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

from trivox.volumes.geometry import Lattice, cofactors

Floats = NDArray[np.float64]
Point = tuple[int, int, int]
Points = list[Point]
CORNERS: tuple[Point, ...] = tuple(product((0, 1), repeat=3))  # type: ignore[arg-type]
"""Offset `(z, y, x)` of the corner that bit i of a neighbourhood code stands for."""


def element_areas(spacing: Lattice) -> Floats:
    """Area in mm² of the surface element of each neighbourhood code `(256,)`; spacing
    in mm `(z, y, x)`, or the steps of a sheared grid.
    """
    normals = _unit_normals() @ cofactors(spacing)
    areas = np.sqrt((normals**2).sum(axis=2))
    return np.asarray(areas.sum(axis=1))


@cache
def _unit_normals() -> Floats:
    """Area vectors of the triangles of each code at spacing 1, `(256, 4 triangles,
    zyx)`, padded with zeros.
    """
    normals = np.zeros((256, 4, 3))
    for code in range(1, 255):
        if code.bit_count() > 4:
            continue  # choice 2: filled with its complement
        inside = {corner for bit, corner in enumerate(CORNERS) if code >> bit & 1}
        cut = map(_largest_triangulation, _polygons(inside))
        triangles = np.concatenate([*cut])
        count = len(triangles)
        normals[code, :count] = triangles
        normals[255 - code, :count] = triangles
    four = [code for code in range(256) if code.bit_count() == 4]
    complements = normals[::-1]
    same = np.allclose(normals[four], complements[four])
    assert same, "choice 2 leaves no freedom"
    return normals


def _polygons(inside: set[Point]) -> Iterator[Points]:
    """Closed polygons of the surface around the `inside` corners; points are edge
    middles in half voxels.
    """
    neighbours: dict[Point, Points] = {}
    for ring in _faces():
        for a, b in _face_segments(ring, inside):
            neighbours.setdefault(a, []).append(b)
            neighbours.setdefault(b, []).append(a)
    while neighbours:
        point: Point | None = min(neighbours)
        polygon = []
        while point is not None:
            polygon.append(point)
            onward = neighbours.pop(point)
            unvisited = [other for other in onward if other in neighbours]
            point = unvisited[0] if unvisited else None
        yield polygon


def _faces() -> Iterator[Points]:
    """The corners of each face of the cube in circular order."""
    ring = ((0, 0), (0, 1), (1, 1), (1, 0))
    for side in (0, 1):
        yield [(side, a, b) for a, b in ring]
        yield [(a, side, b) for a, b in ring]
        yield [(a, b, side) for a, b in ring]


def _face_segments(ring: Points, inside: set[Point]) -> Iterator[tuple[Point, Point]]:
    """Where the surface crosses a face."""
    onward = [*ring[1:], ring[0]]
    middles = []  # of the edges that the surface crosses
    for a, b in zip(ring, onward, strict=True):
        if (a in inside) != (b in inside):
            middles.append(_sum(a, b))
    if len(middles) == 2:
        yield middles[0], middles[1]
    elif middles:
        # Inside corners lie diagonally: the middles on both sides of each.
        if ring[0] in inside:
            middles = [middles[-1], *middles[:-1]]
        yield middles[0], middles[1]
        yield middles[2], middles[3]


def _largest_triangulation(polygon: Points) -> Floats:
    """Area vectors `(triangle, zyx)` of the triangles whose areas add up to most.

    An area vector is normal to its triangle and as long as the area in voxels; points
    are in half voxels, hence the 8.
    """
    vertices = np.array(polygon)
    cuts = [*_cuts(0, len(polygon) - 1)]
    corners = vertices[np.array(cuts)]  # (cut, triangle, corner, zyx)
    first, second, third = np.moveaxis(corners, 2, 0)
    one_edge = second - first
    other_edge = third - first
    vectors = np.cross(one_edge, other_edge) / 8
    areas = np.linalg.norm(vectors, axis=2)
    largest = areas.sum(axis=1).argmax()
    return np.asarray(vectors[largest])


def _cuts(first: int, last: int) -> Iterator[Points]:
    """All ways to cut the polygon of the vertices first..last into triangles (triples
    of vertex numbers).
    """
    if last - first < 2:
        yield []
    for middle in range(first + 1, last):
        triangle = (first, middle, last)
        for left in _cuts(first, middle):
            for right in _cuts(middle, last):
                yield [*left, triangle, *right]


def _sum(a: Point, b: Point) -> Point:
    z, y, x = a
    k, j, i = b
    return z + k, y + j, x + i
