"""Polygons to masks: a pixel is inside if its centre is.

Even-odd over all polygons of a plane, so that a polygon in another is a hole, and the
two edges of a keyhole cancel. A centre on an edge is inside: contours that were traced
from pixel to pixel then give back the mask that they were traced from, and those that
run between pixels never meet a centre.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

ON_EDGE = 0.01
"""Pixels from an edge that count as on it; coordinates are rounded to about this."""
_AT_ONCE = 2**20
"""Crossings that are held in memory."""
Points = NDArray[np.float64]
Complex = NDArray[np.complex128]
"""Points of a plane: column + row i."""
Mask = NDArray[np.bool_]
Whole = NDArray[np.int64]
Reals = NDArray[np.float64]


class Edges(NamedTuple):
    """Where straight edges begin and end."""

    begin: Complex
    end: Complex

    @property
    def mirrored(self) -> "Edges":
        """With rows for columns, and columns for rows."""
        begin = 1j * self.begin.conj()
        end = 1j * self.end.conj()
        return Edges(begin, end)


class Picture(NamedTuple):
    """A box of pixels: its first column and row, and how many there are."""

    column: int
    row: int
    columns: int
    rows: int


def filled(
    polygons: Sequence[Points], size: tuple[int, int]
) -> tuple[Mask, tuple[int, int]]:
    """The mask of closed polygons `(points, 2)` in a picture of `(rows, columns)`: the
    box around them, and its first `(row, column)`.

    Points are `(column, row)` in pixels, whole numbers at their centres.
    """
    edges = _single_edges(polygons)
    box = _box(edges, size)
    corner = complex(box.column, box.row)
    inside = np.zeros((box.rows, box.columns), bool)
    border = np.zeros_like(inside)
    for part in _portions(edges, box):
        moved = Edges(part.begin - corner, part.end - corner)
        inside ^= _odd(moved, box.rows, box.columns)
        border |= _on_edges(moved, box.rows, box.columns)
        across = _on_edges(moved.mirrored, box.columns, box.rows)
        border |= across.T
    return inside | border, (box.row, box.column)


def _single_edges(polygons: Sequence[Points]) -> Edges:
    """The edges of polygons, without those that are walked both ways: the bridges of
    keyholes.
    """
    walked = []
    for points in polygons:
        column, row = points.T
        begin = column + 1j * row
        end = np.roll(begin, -1)
        walked.append(np.stack([begin, end], axis=1))
    edges = np.concatenate(walked)
    alike = np.sort(edges, axis=1)
    _, first, counts = np.unique(alike, axis=0, return_index=True, return_counts=True)
    odd = counts % 2 == 1
    single = edges[first[odd]]
    return Edges(single[:, 0], single[:, 1])


def _box(edges: Edges, size: tuple[int, int]) -> Picture:
    """The pixels of a picture `(rows, columns)` that edges may reach."""
    rows, columns = size
    ends = np.concatenate(edges)
    left, right = _span(ends.real, columns)
    top, bottom = _span(ends.imag, rows)
    wide = right - left
    high = bottom - top
    return Picture(left, top, wide, high)


def _span(places: Reals, size: int) -> tuple[int, int]:
    """The first of `size` pixels that is reached, and the one after the last."""
    smallest = places.min(initial=size)
    largest = places.max(initial=-1)
    low = np.floor(smallest)
    high = np.ceil(largest) + 1
    first = int(np.clip(low, 0, size))
    after = int(np.clip(high, first, size))
    return first, after


def _portions(edges: Edges, box: Picture) -> Iterator[Edges]:
    """Edges, some at a time: each may cross all rows and columns."""
    crossed = max(1, box.rows + box.columns)
    step = max(1, _AT_ONCE // crossed)
    count = len(edges.begin)
    for start in range(0, count, step):
        some = slice(start, start + step)
        begin = edges.begin[some]
        end = edges.end[some]
        yield Edges(begin, end)


def _crossings(edges: Edges, rows: int, *, reach: float) -> tuple[Whole, Reals]:
    """Where edges meet the middle lines of rows: row and column of each crossing.

    reach: rows that an edge may end before; 0: a row is met at the lower end of an edge
    and not at its upper one, so that edges in a chain cross it once.
    """
    low = np.minimum(edges.begin.imag, edges.end.imag)
    high = np.maximum(edges.begin.imag, edges.end.imag)
    first = np.ceil(low - reach)
    after = np.ceil(high)
    if reach:
        after = np.floor(high + reach) + 1
    begun = _within(first, rows)
    ended = _within(after, rows)
    number, row = _all_between(begun, ended)
    begin = edges.begin[number]
    step = edges.end[number] - begin
    above = row - begin.imag
    slope = np.zeros(len(row))
    np.divide(step.real, step.imag, out=slope, where=step.imag != 0)
    along = slope * above
    column = begin.real + along
    left = np.minimum(begin.real, edges.end.real[number])
    right = np.maximum(begin.real, edges.end.real[number])
    return row, column.clip(left, right)


def _within(places: Reals, size: int) -> Whole:
    inside = places.clip(0, size)
    return inside.astype(int)


def _all_between(first: Whole, after: Whole) -> tuple[Whole, Whole]:
    """Of each pair the whole numbers from the first to before the other, with the
    number of the pair.
    """
    counts = np.maximum(after - first, 0)
    pairs = np.arange(len(first))
    number = np.repeat(pairs, counts)
    ends = np.cumsum(counts)
    begun = ends - counts
    places = np.arange(len(number))
    steps = places - begun[number]
    return number, steps + first[number]


def _odd(edges: Edges, rows: int, columns: int) -> Mask:
    """Pixels to whose left an odd number of edges lies."""
    row, column = _crossings(edges, rows, reach=0)
    following = np.ceil(column)
    begin = _within(following, columns)
    wide = columns + 1
    size = rows * wide
    places = row * wide + begin
    toggles = np.bincount(places, minlength=size)
    table = toggles.reshape(rows, wide)
    crossed = table.cumsum(axis=1) % 2
    odd = crossed.astype(bool)
    return odd[:, :columns]


def _on_edges(edges: Edges, rows: int, columns: int) -> Mask:
    """Pixels whose centres lie on an edge, or within `ON_EDGE` of it along a row."""
    row, column = _crossings(edges, rows, reach=ON_EDGE)
    nearest = np.rint(column)
    apart = np.abs(column - nearest)
    on = apart <= ON_EDGE
    on &= nearest >= 0
    on &= nearest < columns
    reached = nearest[on].astype(int)
    mask = np.zeros((rows, columns), bool)
    mask[row[on], reached] = True
    return mask
