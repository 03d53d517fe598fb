"""Contours hold what the mask holds: drawn again, they give it back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import binary_fill_holes, label

from trivox.results.contours import contours_of

MASKS = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9).flatmap(
    lambda shape: arrays(bool, shape)
)


def crossings(points, shape):
    """How often a ray from each voxel's centre to the right crosses a closed contour,
    by the rule of half-open edges.
    """
    rows, columns = np.indices(shape).astype(float)
    count = np.zeros(shape, int)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        spans = (r0 > rows) != (r1 > rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = c0 + (rows - r0) * (c1 - c0) / (r1 - r0)
        count += spans & (columns < at)
    return count


def turns(points, shape):
    """How often a closed contour winds round each voxel's centre."""
    rows, columns = np.indices(shape).astype(float)
    count = np.zeros(shape, int)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        side = (r1 - r0) * (columns - c0) - (c1 - c0) * (rows - r0)
        count += (r0 <= rows) & (r1 > rows) & (side < 0)
        count -= (r0 > rows) & (r1 <= rows) & (side > 0)
    return count


def drawn(contours, shape, rule):
    """By `rule`: parity of all contours of a plane, the union of those in each, or what
    each winds round.
    """
    mask = np.zeros(shape, int)
    for contour in contours:
        if rule == "winding":
            mask[contour.z] |= turns(contour.points, shape[1:]) != 0
        elif rule == "union":
            mask[contour.z] |= crossings(contour.points, shape[1:]) % 2
        else:
            mask[contour.z] ^= crossings(contour.points, shape[1:]) % 2
    return mask.astype(bool)


@pytest.mark.parametrize("rule", ["parity", "union", "winding"])
@given(mask=MASKS)
def test_contours_give_the_mask_back_by_any_rule(rule, mask):
    contours = contours_of(mask)
    np.testing.assert_array_equal(drawn(contours, mask.shape, rule), mask)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.6, 0.9])
def test_noise_is_given_back(share):
    mask = np.random.default_rng(5).random((2, 24, 31)) < share
    for rule in ("parity", "union", "winding"):
        np.testing.assert_array_equal(drawn(contours_of(mask), mask.shape, rule), mask)


@given(mask=MASKS)
def test_every_island_of_a_plane_is_one_contour_and_none_is_a_hole(mask):
    islands = [label(plane)[1] for plane in mask]
    planes = [contour.z for contour in contours_of(mask)]
    assert planes == sorted(planes)
    assert [planes.count(z) for z in range(len(mask))] == islands


@given(mask=MASKS)
def test_ways_turn_at_every_point_and_never_stand_still(mask):
    for contour in contours_of(mask):
        steps = np.roll(contour.points, -1, axis=0) - contour.points
        assert (np.abs(steps).sum(axis=1) > 0).all()
        assert len(contour.points) >= 4


def test_the_channel_of_a_hole_has_no_width():
    mask = np.ones((1, 7, 7), bool)
    mask[0, 3, 3] = False
    (contour,) = contours_of(mask)
    area = np.abs(shoelace(contour.points))
    # a square of 7 voxels without its corners, less the diamond round one voxel
    assert area == pytest.approx(49 - 4 / 8 - 0.5)


def shoelace(points):
    rows, columns = points.T
    return (columns * np.roll(rows, -1) - np.roll(columns, -1) * rows).sum() / 2


def test_rings_in_rings_are_told_apart():
    mask = np.zeros((1, 21, 21), bool)
    for inset, inside in ((1, True), (4, False), (7, True), (9, False)):
        mask[0, inset : 21 - inset, inset : 21 - inset] = inside
    contours = contours_of(mask)
    assert len(contours) == 2
    np.testing.assert_array_equal(drawn(contours, mask.shape, "parity"), mask)
    assert binary_fill_holes(mask[0]).sum() > mask.sum()


def test_an_empty_mask_has_no_contour():
    assert contours_of(np.zeros((3, 4, 5), bool)) == []
