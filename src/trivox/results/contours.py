"""Masks as closed contours, exactly: a voxel's centre lies inside the contours of its
plane if, and only if, the voxel is in the mask.

Marching squares on a mask: every square of four neighbouring voxels adds the lines that
part what is inside from what is not, half-way between centres, with the inside on their
left. Voxels that only touch at a corner are not joined. A hole is joined to the contour
around it by a channel of no width (the keyhole of DICOM PS3.3 C.8.8.6.3), which runs
through voxels of the mask, so that readers which know no holes, and those which take
the parity of contours, all see the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.boxes import box_of
from trivox.results.loops import Loops, Numbers, joined
from trivox.volumes.volume import Array

_SIDES = np.array([(0, -1, -2), (0, -2, -1), (0, -1, 0), (0, 0, -1)])
"""Where the middles of a square's sides (left, upper, right, lower) lie from its lower
right voxel: plane, and row and column doubled. Each side lies before the corner of its
number: upper left, upper right, lower right, lower left.
"""


@dataclass(frozen=True, eq=False)
class Contour:
    """A closed contour in a plane.

    z: of the plane; points: `(n, 2)`, row and column in voxels, centres at whole
    numbers; the last one is joined to the first.
    """

    z: int
    points: NDArray[np.float64]


def contours_of(mask: Array) -> list[Contour]:
    """All contours of a mask `(z, y, x)`, plane by plane; holes are keyholes."""
    box = box_of(mask)
    if box is None:
        return []
    corner = np.array([side.start for side in box])
    loops = _with_channels(_loops(mask[box]))
    order, starts = loops.in_turn
    contours: list[Contour] = []
    for way in np.split(order, starts[1:]):
        sites = loops.sites[way]
        points = _without_straight(sites[:, 1:]) / 2
        z = int(sites[0, 0] + corner[0])
        contours.append(Contour(z, points + corner[1:]))
    return sorted(contours, key=lambda contour: contour.z)


def _loops(mask: Array) -> Loops:
    """The lines of all squares, joined to loops."""
    padded = np.pad(mask, ((0, 0), (1, 1), (1, 1)))
    upper = padded[:, :-1]
    lower = padded[:, 1:]
    corners = [*_halves(upper), *reversed(_halves(lower))]
    begins: list[Numbers] = []
    ends: list[Numbers] = []
    for first in range(4):
        for count in (1, 2, 3):
            run = _is_run(corners, first, count)
            squares = np.argwhere(run)
            begins.append(_middles(squares, first))
            ends.append(_middles(squares, first + count))
    return joined(np.concatenate(begins), np.concatenate(ends))


def _halves(rows: Array) -> list[Array]:
    """The left and the right voxels of squares."""
    left = rows[..., :-1]
    right = rows[..., 1:]
    return [left, right]


def _is_run(corners: Sequence[Array], first: int, count: int) -> Array:
    """Squares of which `count` corners in turn are inside, from the `first` one on, and
    those before and after them are not: a line parts them from the others.
    """
    before = corners[first - 1]
    after = corners[(first + count) % 4]
    squares: Array = ~(before | after)
    for number in range(first, first + count):
        squares &= corners[number % 4]
    return squares


def _middles(squares: Numbers, side: int) -> Numbers:
    """The middles of a side of squares, as sites."""
    doubled = squares * (1, 2, 2)
    sites: Numbers = doubled + _SIDES[side % 4]
    return sites


# -- holes -----------------------------------------------------------------------------
def _with_channels(loops: Loops) -> Loops:
    """The loops, each hole joined to the loop on its left.

    A hole's leftmost point, `near`, ends a run of the mask's voxels in a row. Where the
    run begins, `far`, is a point of the loop around the hole or of a hole farther left;
    points are numbered along rows, so that it is the one before. The way then goes far,
    near, round the hole, near, far.
    """
    near = _leftmost_of_holes(loops)
    far = near - 1
    count = len(loops.after)
    near_again = count + np.arange(len(near))
    far_again = near_again + len(near)
    before = np.empty(count, np.int64)
    before[loops.after] = np.arange(count)
    after = np.concatenate([loops.after, far_again, loops.after[far]])
    after[before[near]] = near_again
    after[far] = near
    again = np.concatenate([near, far])
    sites = np.concatenate([loops.sites, loops.sites[again]])
    return Loops(sites, after)


def _leftmost_of_holes(loops: Loops) -> Numbers:
    """The leftmost point of each hole: the way round it turns to the other side, so that
    its area has the other sign.
    """
    order, starts = loops.in_turn
    places = loops.sites[:, 1:]
    following = places[loops.after]
    products = _cross(places, following)
    areas = np.add.reduceat(products[order], starts)
    columns = loops.sites[:, 2]
    by_column = np.lexsort((columns, loops.heads))
    leftmost: Numbers = by_column[starts]
    return leftmost[areas < 0]


def _without_straight(points: Numbers) -> Numbers:
    """The points at which a way turns."""
    before = points - np.roll(points, 1, axis=0)
    after = np.roll(before, -1, axis=0)
    turns = _cross(before, after) != 0
    corners: Numbers = points[turns]
    return corners


def _cross(one: Numbers, other: Numbers) -> Numbers:
    """The cross products of vectors `(n, 2)` in a plane."""
    row, column = one.T
    other_row, other_column = other.T
    ahead = row * other_column
    aside = column * other_row
    products: Numbers = ahead - aside
    return products
