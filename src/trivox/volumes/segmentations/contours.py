"""Polygons to masks: a pixel is inside if its centre is.

Even-odd over all polygons of a plane, so that a polygon in another is a hole, and the
two edges of a keyhole cancel. A centre on an edge is inside: contours that were traced
from pixel to pixel then give back the mask that they were traced from, and those that
run between pixels never meet a centre.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

ON_EDGE = 0.01
"""Pixels from an edge that count as on it; coordinates are rounded to about this."""
_AT_ONCE = 2**20
"""Crossings that are held in memory."""
Points = NDArray[np.float64]
Edges = NDArray[np.float64]
"""`(edges, 2, 2)`: both ends `(column, row)` in pixels."""
Mask = NDArray[np.bool_]
Whole = NDArray[np.int64]


def filled(
    polygons: Sequence[Points], size: tuple[int, int]
) -> tuple[Mask, tuple[int, int]]:
    """The mask of closed polygons `(points, 2)` in a picture of `(rows, columns)`: the
    box around them, and its first `(row, column)`.

    Points are `(column, row)` in pixels, whole numbers at their centres.
    """
    edges = _without_pairs(np.concatenate([_edges(points) for points in polygons]))
    first, last = _box(edges, size)
    edges = edges - first
    columns, rows = (last - first).tolist()
    odd = np.zeros((rows, columns), bool)
    border = np.zeros((rows, columns), bool)
    for part in _portions(edges, rows + columns):
        odd ^= _odd(part, odd.shape)
        border |= _on_edges(part, odd.shape)
        across = _on_edges(part[:, :, ::-1], (columns, rows))
        border |= across.T
    column, row = first.tolist()
    return odd | border, (row, column)


def _box(edges: Edges, size: tuple[int, int]) -> tuple[Whole, Whole]:
    """First `(column, row)` that edges reach in a picture, and the one after the last."""
    most = np.array(size[::-1], np.int64)
    if not len(edges):
        return np.zeros(2, np.int64), np.zeros(2, np.int64)
    low = np.clip(np.floor(edges.min(axis=(0, 1))), 0, most)
    high = np.clip(np.ceil(edges.max(axis=(0, 1))) + 1, low, most)
    return low.astype(np.int64), high.astype(np.int64)


def _portions(edges: Edges, crossed: int) -> Iterator[Edges]:
    """Edges, some at a time; each may cross so many rows and columns."""
    step = max(1, _AT_ONCE // max(crossed, 1))
    for start in range(0, len(edges), step):
        yield edges[start : start + step]


def _edges(points: Points) -> Edges:
    following = np.roll(points, -1, axis=0)
    edges: Edges = np.stack([points, following], axis=1)
    return edges


def _without_pairs(edges: Edges) -> Edges:
    """Edges without those that are walked both ways, the bridges of keyholes."""
    rising = (edges[:, 0] < edges[:, 1]).any(axis=1)
    forward = rising & (edges[:, 0, 0] <= edges[:, 1, 0])
    alike = np.where(forward[:, None, None], edges, edges[:, ::-1])
    flat = alike.reshape(-1, 4)
    _, first, counts = np.unique(flat, axis=0, return_index=True, return_counts=True)
    single = np.sort(first[counts % 2 == 1])
    return np.asarray(edges[single])


def _crossings(edges: Edges, rows: int, *, reach: float) -> tuple[Whole, Points]:
    """Where edges meet the middle lines of rows: row and column of each crossing.

    reach: rows that an edge may end before; 0: a row is met at the lower end of an edge
    and not at its upper one, so that edges in a chain cross it once.
    """
    heights = edges[:, :, 1]
    lowest = heights.min(axis=1)
    highest = heights.max(axis=1)
    first = np.ceil(lowest - reach)
    after = np.ceil(highest)
    if reach:
        after = np.floor(highest + reach) + 1
    number, row = _all_between(_within(first, rows), _within(after, rows))
    begin = edges[number, 0]
    step = edges[number, 1] - begin
    share = np.zeros(len(row))
    np.divide(row - begin[:, 1], step[:, 1], out=share, where=step[:, 1] != 0)
    along = share.clip(0, 1) * step[:, 0]
    return row, begin[:, 0] + along


def _within(places: Points, size: int) -> Whole:
    return places.clip(0, size).astype(np.int64)


def _all_between(first: Whole, after: Whole) -> tuple[Whole, Whole]:
    """Of each pair the whole numbers from the first to before the other, with the
    number of the pair.
    """
    counts = np.maximum(after - first, 0)
    number = np.repeat(np.arange(len(first)), counts)
    ends = np.cumsum(counts)
    begun = np.repeat(ends - counts, counts)
    return number, np.arange(len(number)) - begun + first[number]


def _odd(edges: Edges, size: tuple[int, int]) -> Mask:
    """Pixels to whose left an odd number of edges lies."""
    rows, columns = size
    row, column = _crossings(edges, rows, reach=0)
    begin = _within(np.ceil(column), columns)
    wide = columns + 1
    toggles = np.bincount(row * wide + begin, minlength=rows * wide)
    crossed = toggles.reshape(rows, wide).cumsum(axis=1)
    return np.asarray(crossed[:, :columns] % 2 == 1)


def _on_edges(edges: Edges, size: tuple[int, int]) -> Mask:
    """Pixels whose centres lie on an edge, or within `ON_EDGE` of it along a row."""
    rows, columns = size
    row, column = _crossings(edges, rows, reach=ON_EDGE)
    nearest = np.rint(column)
    on = np.abs(column - nearest) <= ON_EDGE
    on &= nearest >= 0
    on &= nearest < columns
    mask = np.zeros(size, bool)
    mask[row[on], nearest[on].astype(np.int64)] = True
    return mask
