"""The longest lines within a structure: in space, and in a slice with the line across.

Both end on faces of voxels, half a voxel beyond the centres of the outermost ones. These
are the vertices of a surface mesh at half height, so that the line in space is the
"maximum 3D diameter" of IBSI (code L0JK); a digital ball measures its diameter, neither
a voxel less (centres) nor a voxel more (corners).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.ndimage import label as number_pieces
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from trivox.evaluation.metrics.components import label_components
from trivox.volumes.geometry import longest_diagonal
from trivox.volumes.volume import Array, Steps

Points = NDArray[np.float64]
"""A point a row."""

A_PORTION = 1024
"""Points whose distances to all others are computed at once."""
ALIKE = 1e-9
"""Share by which lines may differ that count as equally long."""


class AxialLines(NamedTuple):
    """The longest line within a slice and the longest one at right angles to it, in mm,
    and the number of the slice.
    """

    long_mm: float
    short_mm: float
    slice: int


class _Piece(NamedTuple):
    """A connected piece: its first voxel, its mask, and what no line in it exceeds."""

    first: tuple[int, ...]
    mask: Array
    most_mm: float


def longest_line(mask: Array, steps: Steps) -> float:
    """Length in mm of the longest line between two faces of one connected piece.

    mask: `(z, y, x)`, not empty; steps: in mm along z, y, x, a row each. Pieces are
    26-connected: two lesions of one label are not measured from end to end.
    """
    longest = 0.0
    for piece in _pieces(label_components(mask), steps):
        if piece.most_mm <= longest:
            break
        corners = _corners(piece.mask) @ steps
        longest = max(longest, float(_distances(corners).max()))
    return longest


def axial_lines(mask: Array, steps: Steps, axis: int) -> AxialLines:
    """The longest line within one piece of one slice, and the longest line across it.

    axis: 0, 1, 2 (z, y, x) along which slices are counted. Pieces are connected within
    their slice, by edges or corners: no line joins the two legs of an arch. The line
    across is the longest chord of the piece's convex hull at right angles to the long
    one (RECIST 1.1, WHO); of equally long lines counts that with the longest one across.
    """
    slices = np.moveaxis(mask, axis, 0)
    planar = np.delete(steps, axis, axis=0)
    flat = _in_plane(planar)
    within_slice = np.zeros((3, 3, 3), bool)
    within_slice[1] = True
    numbered, _ = number_pieces(slices, within_slice)
    # a line leaves no slice, however thick that is
    bounds = np.concatenate([np.zeros((1, 3)), planar])
    best = AxialLines(0.0, 0.0, 0)
    for piece in _pieces(numbered, bounds):
        if piece.most_mm < best.long_mm * (1 - ALIKE):
            break
        corners = _corners(piece.mask[0]) @ flat
        lines = AxialLines(*_long_and_short(corners), piece.first[0])
        best = max(best, lines, key=_by_length)
    return best


def _by_length(lines: AxialLines) -> tuple[float, float]:
    """What lines are compared by; lengths that differ by rounding alone are equal."""
    return float(f"{lines.long_mm:.9g}"), lines.short_mm


def _in_plane(planar: Points) -> Points:
    """Steps along two axes `(2, 3)` as `(2, 2)`, in mm of the plane they span."""
    basis, _ = np.linalg.qr(planar.T)
    return np.asarray(planar @ basis)


def _pieces(numbered: Array, steps: Points) -> Iterator[_Piece]:
    """Pieces numbered from 1 on, those first in which lines may be longest."""
    boxes = find_objects(numbered)
    bounds = [_diagonal(box, steps) for box in boxes]
    longest_first = sorted(range(len(boxes)), key=lambda place: -bounds[place])
    for place in longest_first:
        box = boxes[place]
        first = tuple(side.start for side in box)
        mask = numbered[box] == place + 1
        yield _Piece(first, mask, bounds[place])


def _diagonal(box: tuple[slice, ...], steps: Points) -> float:
    """The longest diagonal of a box of voxels in mm."""
    spans = tuple(side.stop - side.start for side in box)
    return longest_diagonal(steps, spans)


def _corners(mask: Array) -> Points:
    """Corners of the convex hull of the faces' centres, as voxel indices; in a plane
    they go round.
    """
    ends = [_ends(mask, axis) for axis in range(mask.ndim)]
    points = np.concatenate(ends)
    # indices are small multiples of a half, whatever the voxels measure
    return np.asarray(points[ConvexHull(points).vertices])


def _ends(mask: Array, axis: int) -> Points:
    """Centres of the first and the last face on each line of voxels along an axis."""
    lines = np.moveaxis(mask, axis, 0)
    crossed = np.nonzero(lines.any(axis=0))
    first = lines.argmax(axis=0)[crossed]
    after = len(lines) - lines[::-1].argmax(axis=0)[crossed]
    across = np.stack(crossed, axis=1)
    ends = [
        np.insert(across.astype(float), axis, end - 0.5, axis=1)
        for end in (first, after)
    ]
    return np.concatenate(ends)


def _distances(points: Points) -> Points:
    """The distance of each point from the one farthest from it."""
    farthest = []
    for first in range(0, len(points), A_PORTION):
        part = points[first : first + A_PORTION]
        farthest.append(cdist(part, points).max(axis=1))
    return np.concatenate(farthest)


def _long_and_short(corners: Points) -> tuple[float, float]:
    """Length of the longest line between corners of a polygon that go round, and of the
    longest one across.
    """
    lengths = cdist(corners, corners)
    longest = float(lengths.max())
    ends = np.argwhere(lengths >= longest * (1 - ALIKE))
    short = max(_across(corners, start, end) for start, end in ends if start < end)
    return longest, short


def _across(corners: Points, start: int, end: int) -> float:
    """The longest chord at right angles to the line between two corners, the longest of
    the polygon.
    """
    from_start = corners - corners[start]
    line = from_start[end]
    direction = line / np.linalg.norm(line)
    right_angle = direction[::-1] * (-1, 1)
    along = from_start @ direction
    across = from_start @ right_angle
    # the two sides of the polygon, from one end of the line to the other
    one = slice(start, end + 1)
    other = [*range(end, len(corners)), *range(start + 1)][::-1]
    here = np.interp(along, along[one], across[one])
    there = np.interp(along, along[other], across[other])
    return float(np.abs(here - there).max())
