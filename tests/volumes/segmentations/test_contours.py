"""Polygons to masks: the pixel centre decides, whatever the shape."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.volumes.segmentations.contours import filled


def mask_of(polygons, size):
    part, (row, column) = filled([np.array(p, float) for p in polygons], size)
    mask = np.zeros(size, bool)
    rows, columns = part.shape
    mask[row : row + rows, column : column + columns] = part
    return mask


def inside(polygons, size):
    """The winding of each centre, point by point: an oracle without any cleverness."""
    mask = np.zeros(size, bool)
    for row, column in np.ndindex(size):
        odd = False
        for points in polygons:
            ends = [*points[1:], points[0]]
            for (x0, y0), (x1, y1) in zip(points, ends, strict=True):
                if (y0 > row) != (y1 > row):
                    odd ^= x0 + (row - y0) * (x1 - x0) / (y1 - y0) > column
        mask[row, column] = odd
    return mask


def off_the_edges(polygons, size):
    """Pixels whose centre is clearly on one side of all edges."""
    clear = np.ones(size, bool)
    rows, columns = np.indices(size)
    centres = np.stack([columns, rows], axis=-1)
    for points in polygons:
        for start, end in zip(points, [*points[1:], points[0]], strict=True):
            step = np.subtract(end, start)
            along = (centres - start) @ step / max(step @ step, 1e-12)
            nearest = start + along.clip(0, 1)[..., None] * step
            clear &= np.linalg.norm(centres - nearest, axis=-1) > 0.011
    return clear


coordinate = st.integers(-20, 130).map(lambda n: n / 7 + 0.013)
polygon = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9)


@given(st.lists(polygon, min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_centre_decides(polygons):
    size = (15, 17)
    clear = off_the_edges(polygons, size)
    np.testing.assert_array_equal(
        mask_of(polygons, size)[clear], inside(polygons, size)[clear]
    )


def border_of(mask):
    """The edges between pixels of a mask, as closed polygons round each pixel."""
    squares = []
    for row, column in np.argwhere(mask):
        corners = [(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]
        squares.append([(column + x, row + y) for x, y in corners])
    return squares


@given(st.integers(0, 2**63))
@settings(max_examples=30, deadline=None)
def test_edges_between_pixels_give_the_mask_back(seed):
    mask = np.random.default_rng(seed).random((9, 11)) < 0.5
    if mask.any():
        np.testing.assert_array_equal(mask_of(border_of(mask), mask.shape), mask)


def test_a_contour_through_centres_holds_them():
    mask = mask_of([[(2, 1), (6, 1), (6, 4), (2, 4)]], (7, 9))
    assert mask[1:5, 2:7].all()
    assert mask.sum() == 4 * 5


def test_a_hole_is_left_out_as_a_contour_of_its_own_and_by_a_keyhole():
    outer = [(0.5, 0.5), (9.5, 0.5), (9.5, 9.5), (0.5, 9.5)]
    hole = [(3.5, 3.5), (3.5, 6.5), (6.5, 6.5), (6.5, 3.5)]
    apart = mask_of([outer, hole], (11, 11))
    keyhole = mask_of([[*outer, outer[0], *hole, hole[0]]], (11, 11))
    np.testing.assert_array_equal(apart, keyhole)
    assert apart.sum() == 81 - 9
    assert not apart[4:7, 4:7].any()


def test_a_bridge_between_islands_marks_nothing():
    """The way there and back of one polygon round two islands, along pixel centres."""
    first = [(1.5, 1.5), (3.5, 1.5), (3.5, 3), (3.5, 4.5), (1.5, 4.5)]
    second = [(7.5, 1.5), (9.5, 1.5), (9.5, 4.5), (7.5, 4.5), (7.5, 3)]
    bridged = [*first[:3], (7.5, 3), *second[:-1], (7.5, 3), (3.5, 3), *first[3:]]
    np.testing.assert_array_equal(
        mask_of([bridged], (7, 12)), mask_of([first, second], (7, 12))
    )


@pytest.mark.parametrize("turn", [(0, 1), (1, 0)])
def test_what_lies_outside_the_picture_is_cut_off(turn):
    points = np.array([(-5.2, 2.3), (30.7, 2.3), (30.7, 5.1), (-5.2, 5.1)])[:, turn]
    mask = mask_of([points], (8, 8))
    assert mask.sum() == 3 * 8
    assert not mask_of([points + 100], (8, 8)).any()


def test_many_edges_take_no_more_memory_at_once():
    """A zigzag of which each edge crosses all rows."""
    x = np.linspace(0, 200, 6000)
    y = np.tile([-1.0, 300.0], 3000)
    assert mask_of([np.stack([x, y], axis=1)], (300, 200)).any()
