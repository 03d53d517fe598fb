"""What all figures share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trivox.evaluation.report.drawing import (
    dark_figure,
    drawable,
    escaped,
    outline_mask,
    panel,
)


def outline_of(mask):
    """The closed lines of the outline of a mask, in mm."""
    axes = panel(dark_figure(1.0), (0, 0, 1, 1))
    outline_mask(axes, mask, 2.0, 0.5, "white", width=1)
    lines = []
    for collection in axes.collections:
        for path in collection.get_paths():
            lines += [line for line in path.to_polygons(closed_only=True) if len(line)]
    return lines


@settings(max_examples=30)
@given(arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_an_outline_stands_where_the_mask_is(mask):
    lines = outline_of(mask)
    assert bool(lines) == mask.any()
    if mask.any():
        points = np.concatenate(lines)
        rows, columns = np.nonzero(mask)
        low = [columns.min() * 0.5, rows.min() * 2.0]
        high = [(columns.max() + 1) * 0.5, (rows.max() + 1) * 2.0]
        np.testing.assert_allclose(points.min(axis=0), low)
        np.testing.assert_allclose(points.max(axis=0), high)


def test_what_lies_around_a_mask_does_not_move_its_outline():
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:5] = True
    mask[2, 3] = False
    wide = np.pad(mask, ((3, 40), (7, 50)))
    for line, moved in zip(outline_of(mask), outline_of(wide), strict=True):
        np.testing.assert_allclose(moved, line + np.array([7 * 0.5, 3 * 2.0]))


@pytest.mark.parametrize(
    ("text", "drawn"), [("a_b", "a_b"), ("肝", "□"), ("ü$x$", r"ü\$x\$")]
)
def test_text_is_drawn_as_far_as_the_font_goes(text, drawn):
    assert escaped(text) == drawn
    assert drawable(text) == drawn.replace("\\", "")
