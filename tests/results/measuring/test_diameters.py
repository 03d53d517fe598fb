"""The longest lines: against brute force, boxes, balls, and what does not change them."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from trivox.evaluation.metrics.components import label_components
from trivox.results.measuring.diameters import axial_lines, longest_line

FACES = 0.5 * np.concatenate([np.eye(3), -np.eye(3)])


def upright(spacing):
    return np.diag(spacing).astype(float)


@st.composite
def masks(draw, most=5):
    shape = draw(st.tuples(*[st.integers(1, most)] * 3))
    mask = np.zeros(shape, bool)
    mask.flat = draw(st.lists(st.booleans(), min_size=mask.size, max_size=mask.size))
    mask.flat[draw(st.integers(0, mask.size - 1))] = True
    return mask


@st.composite
def lattices(draw):
    """Steps along z, y, x: turned, sheared, of any length."""
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    lengths = np.exp(rng.uniform(-3, 3, size=(3, 1)))
    shear = np.eye(3) + np.triu(rng.uniform(-0.3, 0.3, (3, 3)), 1)
    return lengths * (shear @ turn)


def faces_mm(mask, steps):
    """Centres of all faces between a voxel of the mask and one outside."""
    padded = np.pad(mask, 1)
    points = []
    for voxel in np.argwhere(mask):
        for face in FACES:
            beside = tuple(voxel + 1 + np.rint(2 * face).astype(int))
            points += [] if padded[beside] else [voxel + face]
    return np.array(points) @ steps


def every_piece(mask):
    numbered = label_components(mask)
    return [numbered == number for number in range(1, numbered.max() + 1)]


@settings(max_examples=25)
@given(masks(), lattices())
def test_the_longest_line_is_that_of_all_pairs_of_faces(mask, steps):
    every = [pdist(faces_mm(piece, steps)).max() for piece in every_piece(mask)]
    assert longest_line(mask, steps) == pytest.approx(max(every), rel=1e-9)


@settings(max_examples=25)
@given(masks(), lattices(), st.integers(0, 2))
def test_the_axial_line_is_that_of_all_pairs_of_faces_within_a_slice(mask, steps, axis):
    longest = 0.0
    for number in range(mask.shape[axis]):
        plane = np.zeros_like(mask)
        chosen = [slice(None)] * 3
        chosen[axis] = slice(number, number + 1)
        plane[tuple(chosen)] = mask[tuple(chosen)]
        for piece in every_piece(plane):
            if not piece.any():
                continue
            inside = [
                voxel + face
                for voxel, face in product(np.argwhere(piece), FACES)
                if face[axis] == 0
            ]
            longest = max(longest, pdist(np.array(inside) @ steps).max())
    lines = axial_lines(mask, steps, axis)
    assert lines.long_mm == pytest.approx(longest, rel=1e-9)
    assert 0 < lines.short_mm <= lines.long_mm * (1 + 1e-9)
    assert mask.take(lines.slice, axis=axis).any()


@settings(max_examples=25)
@given(masks(), lattices(), st.permutations(range(3)), st.integers(0, 7))
def test_the_order_and_direction_of_the_axes_change_no_line(mask, steps, order, flips):
    turned = mask.transpose(order)
    turned_steps = steps[list(order)]
    for axis in range(3):
        if flips >> axis & 1:
            turned = np.flip(turned, axis)
            turned_steps = turned_steps * np.where(np.arange(3) == axis, -1, 1)[:, None]
    assert longest_line(turned, turned_steps) == pytest.approx(
        longest_line(mask, steps)
    )
    here = axial_lines(mask, steps, order[0])
    there = axial_lines(turned, turned_steps, 0)
    assert there[:2] == pytest.approx(here[:2], rel=1e-6)


@settings(max_examples=25)
@given(masks(), lattices(), st.floats(0.01, 100))
def test_lines_grow_with_the_voxels(mask, steps, factor):
    grown = longest_line(mask, factor * steps)
    assert grown == pytest.approx(factor * longest_line(mask, steps))
    small = axial_lines(mask, steps, 0)
    large = axial_lines(mask, factor * steps, 0)
    assert large[:2] == pytest.approx([factor * line for line in small[:2]], rel=1e-6)


@settings(max_examples=25)
@given(st.floats(3, 12), st.tuples(*[st.floats(-0.5, 0.5)] * 3))
def test_a_ball_measures_its_diameter(radius, shift):
    """Within half a voxel and the width of one: a ball is made of voxels."""
    grid = np.indices([27] * 3).reshape(3, -1).T - 13 - np.array(shift)
    ball = (np.linalg.norm(grid, axis=1) <= radius).reshape([27] * 3)
    spacing = 0.8
    measured = longest_line(ball, upright([spacing] * 3))
    assert abs(measured - 2 * radius * spacing) <= 1.1 * spacing
    lines = axial_lines(ball, upright([spacing] * 3), 0)
    assert abs(lines.long_mm - 2 * radius * spacing) <= 1.3 * spacing
    assert abs(lines.short_mm - 2 * radius * spacing) <= 1.3 * spacing


def test_a_bar_measures_its_length_and_width():
    mask = np.zeros((6, 9, 30), bool)
    mask[2:4, 4:5, 3:27] = True
    lines = axial_lines(mask, upright([5, 2, 0.5]), 0)
    assert lines == (12.0, 2.0, 2)


def test_lines_join_no_two_pieces():
    mask = np.zeros((1, 5, 40), bool)
    mask[0, 2, 2:6] = True
    mask[0, 2, 30:37] = True
    steps = upright([1, 1, 1])
    assert longest_line(mask, steps) == 7.0
    assert axial_lines(mask, steps, 0).long_mm == 7.0


def test_no_line_joins_the_legs_of_an_arch_within_a_slice():
    mask = np.zeros((3, 5, 20), bool)
    mask[:, 1:4, 2:5] = True
    mask[:, 1:4, 15:18] = True
    mask[2, 1:4, 2:18] = True
    lines = axial_lines(mask[:2], upright([1, 1, 1]), 0)
    assert lines.long_mm < 5
    assert axial_lines(mask, upright([1, 1, 1]), 0).slice == 2


def test_a_rhombus_has_its_shorter_diagonal_across():
    rows, columns = np.indices((81, 161))
    rhombus = abs(rows - 40) / 30 + abs(columns - 80) / 60 <= 1
    lines = axial_lines(rhombus[None], upright([1, 1, 1]), 0)
    assert lines.long_mm == pytest.approx(120, abs=1.1)
    assert lines.short_mm == pytest.approx(60, abs=1.1)
