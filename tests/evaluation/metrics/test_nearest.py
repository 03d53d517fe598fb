"""Nearest distances against scipy's exact Euclidean distance transform."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from trivox.evaluation.metrics import nearest
from trivox.evaluation.metrics.nearest import ColumnDistances, distances_to

few = settings(max_examples=40, deadline=None, derandomize=True)
spacings = st.tuples(*[st.sampled_from([0.5, 0.83, 1.0, 2.5, 7.0])] * 3)
shapes = st.tuples(*[st.integers(1, 24)] * 3)


def drawn(seed, shape, share):
    return np.random.default_rng(seed).random(shape) < share


@few
@given(
    seed=st.integers(0, 999),
    shape=shapes,
    spacing=spacings,
    share=st.sampled_from([0.005, 0.05, 0.5]),
    together=st.sampled_from([1, 64, 1 << 16]),
)
def test_distances_are_those_of_the_euclidean_distance_transform(
    seed, shape, spacing, share, together
):
    points = drawn(seed, shape, 0.2)
    mask = drawn(seed + 1000, shape, share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "TOGETHER", together)
        distances = distances_to(points, mask, spacing=spacing)
    if mask.any():
        expected = distance_transform_edt(~mask, sampling=spacing)[points]
        assert distances == pytest.approx(expected, abs=1e-9)
    else:
        assert np.isinf(distances).all()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 0.9), (1, 2, 1)])
def test_neighbours_beyond_the_columns_looked_at_are_found(spacing):
    points, mask = np.zeros((2, 3, 80, 90), bool)
    points[0, :, ::7] = True
    mask[2, -1, -1] = True
    mask[1, 0, 88] = True
    expected = distance_transform_edt(~mask, sampling=spacing)[points]
    assert expected.max() > 2 * nearest.REACH
    assert distances_to(points, mask, spacing=spacing) == pytest.approx(
        expected, abs=1e-9
    )


@few
@given(
    seed=st.integers(0, 999),
    limit=st.sampled_from([0.0, 1.0, 1.5, 3.0, 20.0]),
    spacing=spacings,
)
def test_beyond_the_limit_distances_are_infinite_and_within_it_they_stay(
    seed, limit, spacing
):
    points = drawn(seed, (9, 30, 31), 0.1)
    mask = drawn(seed + 1, (9, 30, 31), 0.002)
    full = distances_to(points, mask, spacing=spacing)
    limited = distances_to(points, mask, spacing=spacing, limit_mm=limit)
    near = full <= limit
    assert np.array_equal(limited[near], full[near])
    assert np.isinf(limited[full > limit * 1.001 + 0.001]).all()


def test_columns_count_voxels_along_z():
    mask = drawn(0, (12, 4, 5), 0.1)
    r = nearest.REACH
    columns = ColumnDistances.of(mask).distance[:, r:-r, r:-r]
    for y in range(4):
        for x in range(5):
            hits = np.flatnonzero(mask[:, y, x])
            expected = [min(abs(hits - z), default=nearest.FAR) for z in range(12)]
            assert columns[:, y, x].tolist() == expected


def test_no_points_have_no_distances():
    nothing = np.zeros((2, 3, 4), bool)
    assert distances_to(nothing, ~nothing, spacing=(1, 1, 1)).shape == (0,)
