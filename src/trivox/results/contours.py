"""Masks as closed contours, exactly: a voxel's centre lies inside the contours of its
plane if, and only if, the voxel is in the mask.

Marching squares on a mask: every square of four neighbouring voxels adds the lines that
part what is inside from what is not, half-way between centres, with the inside on their
left. Voxels that only touch at a corner are not joined. A hole is joined to the contour
around it by a channel of no width (the keyhole of DICOM PS3.3 C.8.8.6.3), which runs
through voxels of the mask, so that readers which know no holes, and those which take
the parity of contours, all see the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.boxes import box_of
from trivox.volumes.volume import Array

Numbers = NDArray[np.int64]
TOP, RIGHT, BOTTOM, LEFT = range(4)
"""Sides of a square of four voxels: above the upper two is none, so that `TOP` lies
between them; and so on round."""
_LINES: dict[int, tuple[tuple[int, int], ...]] = {
    0b0001: ((LEFT, TOP),),
    0b0010: ((TOP, RIGHT),),
    0b0100: ((RIGHT, BOTTOM),),
    0b1000: ((BOTTOM, LEFT),),
    0b0011: ((LEFT, RIGHT),),
    0b0110: ((TOP, BOTTOM),),
    0b1100: ((RIGHT, LEFT),),
    0b1001: ((BOTTOM, TOP),),
    0b1110: ((TOP, LEFT),),
    0b1101: ((RIGHT, TOP),),
    0b1011: ((BOTTOM, RIGHT),),
    0b0111: ((LEFT, BOTTOM),),
    0b0101: ((LEFT, TOP), (RIGHT, BOTTOM)),
    0b1010: ((TOP, RIGHT), (BOTTOM, LEFT)),
}
"""The lines of a square, from side to side, by which of its voxels are inside: upper
left 1, upper right 2, lower right 4, lower left 8."""


@dataclass(frozen=True, eq=False)
class Contour:
    """A closed contour in a plane.

    z: of the plane; points: `(n, 2)`, row and column in voxels, centres at whole
    numbers; the last one is joined to the first.
    """

    z: int
    points: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Loops:
    """Points on closed ways.

    sites: of each point, its plane, and its row and column doubled so that they are
    whole, `(n, 3)`, in ascending order; after: the number of the point that follows
    each.
    """

    sites: Numbers
    after: Numbers


def contours_of(mask: Array) -> list[Contour]:
    """All contours of a mask `(z, y, x)`, plane by plane; holes are keyholes."""
    box = box_of(mask)
    if box is None:
        return []
    corner = np.array([side.start for side in box])
    loops = _with_channels(_loops(mask[box]))
    order, starts = _in_turn(loops.after)
    contours: list[Contour] = []
    for way in np.split(order, starts[1:]):
        sites = loops.sites[way]
        points = _without_straight(sites[:, 1:]) / 2 + corner[1:]
        contours.append(Contour(int(sites[0, 0] + corner[0]), points))
    return sorted(contours, key=lambda contour: contour.z)


def _loops(mask: Array) -> _Loops:
    """The lines of all squares, joined to loops."""
    padded = np.pad(mask.astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    upper = padded[:, :-1]
    lower = padded[:, 1:]
    kinds = upper[..., :-1] + 2 * upper[..., 1:] + 4 * lower[..., 1:]
    kinds += 8 * lower[..., :-1]
    begins: list[Numbers] = []
    ends: list[Numbers] = []
    for kind, lines in _LINES.items():
        squares = np.argwhere(kinds == kind)
        for begin, end in lines:
            begins.append(_side(squares, begin))
            ends.append(_side(squares, end))
    return _joined(np.concatenate(begins), np.concatenate(ends))


_SIDES = np.array([(0, 0, 1), (0, 1, 2), (0, 2, 1), (0, 1, 0)])
"""Where the middle of each side lies from a square's upper left voxel: plane, and row
and column doubled.
"""


def _side(squares: Numbers, side: int) -> Numbers:
    """The middles of a side of squares, as sites, with the margin taken off."""
    sites: Numbers = squares * (1, 2, 2) + _SIDES[side] - (0, 2, 2)
    return sites


def _joined(begins: Numbers, ends: Numbers) -> _Loops:
    """Lines joined to loops: one begins where another ends."""
    lowest = np.array([0, -1, -1])
    rows, columns = (begins - lowest)[:, 1:].max(axis=0) + 1
    scale = np.array([rows * columns, columns, 1])
    keys = (begins - lowest) @ scale
    order = np.argsort(keys)
    after = np.searchsorted(keys[order], (ends - lowest) @ scale)
    return _Loops(begins[order], after[order])


def _in_turn(after: Numbers) -> tuple[Numbers, Numbers]:
    """The points of all loops, each loop in its order, and where each begins."""
    heads = _heads(after)
    left = _steps_left(after, heads)
    order = np.lexsort((-left, heads))
    starts = np.flatnonzero(np.diff(heads[order], prepend=-1))
    return order, starts


def _heads(after: Numbers) -> Numbers:
    """The smallest number in the loop of each point; found by jumps twice as far each
    time.
    """
    heads = np.arange(len(after))
    jump = after
    while True:
        smaller = np.minimum(heads, heads[jump])
        if (smaller == heads).all():
            return heads
        heads = smaller
        jump = jump[jump]


def _steps_left(after: Numbers, heads: Numbers) -> Numbers:
    """How many points follow each until its loop comes back to its head, likewise."""
    numbers = np.arange(len(after))
    is_last = after == heads
    jump = np.where(is_last, numbers, after)
    left: Numbers = (~is_last).astype(np.int64)
    while (jump != jump[jump]).any():
        left = left + left[jump]
        jump = jump[jump]
    return left


# -- holes -----------------------------------------------------------------------------
def _with_channels(loops: _Loops) -> _Loops:
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
    sites = np.concatenate([loops.sites, loops.sites[near], loops.sites[far]])
    return _Loops(sites, after)


def _leftmost_of_holes(loops: _Loops) -> Numbers:
    """The leftmost point of each hole: the way round it turns to the other side, so that
    its area has the other sign.
    """
    order, starts = _in_turn(loops.after)
    rows = loops.sites[order, 1]
    columns = loops.sites[order, 2]
    following = loops.after[order]
    next_rows = loops.sites[following, 1]
    next_columns = loops.sites[following, 2]
    areas = np.add.reduceat(columns * next_rows - next_columns * rows, starts)
    ways = np.split(order, starts[1:])
    leftmost = [way[np.argmin(loops.sites[way, 2])] for way in ways]
    holes: Numbers = np.array(leftmost, np.int64)[areas > 0]
    return holes


def _without_straight(points: Numbers) -> Numbers:
    """The points at which a way turns."""
    before = points - np.roll(points, 1, axis=0)
    after = np.roll(points, -1, axis=0) - points
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    onward = (before * after).sum(axis=1) > 0
    turning: Numbers = points[(turn != 0) | ~onward]
    return turning
