"""What is resampled slice by slice, and which label wins a tie, as in nnU-Net's own
function of resampling, written out with scikit-image and scipy.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from trivox.volumes.resampling import resize_labels, resize_slices

pytestmark = pytest.mark.oracle
transform = pytest.importorskip("skimage.transform")
few = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.tuples(*[st.integers(2, 9)] * 3)


def resized(array, shape, order):
    return transform.resize(array, shape, order, mode="edge", anti_aliasing=False)


@few
@given(
    sizes,
    sizes,
    st.integers(0, 2),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([0, 1, 3]),
)
def test_slices_are_resized_and_clipped_each_for_itself(
    size, shape, axis, order, across
):
    array = np.random.default_rng(0).normal(size=size).astype(np.float32)
    plane = [n for other, n in enumerate(shape) if other != axis]
    slices = [
        resized(part.astype(float), plane, order)
        for part in np.moveaxis(array, axis, 0)
    ]
    between = np.stack(slices, axis)
    steps = [
        (np.arange(new) + 0.5) * old / new - 0.5
        for old, new in zip(between.shape, shape, strict=True)
    ]
    expected = between
    if between.shape != shape:
        places = np.stack(np.meshgrid(*steps, indexing="ij"))
        expected = map_coordinates(between, places, order=across, mode="nearest")
    result = resize_slices(
        torch.from_numpy(array)[None],
        shape,
        axis=axis,
        order=order,
        order_across=across,
    )
    np.testing.assert_allclose(result[0].numpy(), expected, atol=2e-5)


@few
@given(sizes, sizes, st.integers(2, 5))
def test_the_nearest_of_labels_of_equal_weight_wins(size, shape, labels):
    array = np.random.default_rng(1).integers(-1, labels, size).astype(np.int16)
    values = np.unique(array)
    weights = np.stack([resized((array == v).astype(float), shape, 1) for v in values])
    best = weights == weights.max(0)
    nearest = resized(array.astype(float), shape, 0)
    near = (best & (values[:, None, None, None] == nearest)).any(0)
    expected = np.where(near, nearest, values[best.argmax(0)])
    if size == shape:
        expected = array
    result = resize_labels(torch.from_numpy(array), shape, ties="nearest")
    np.testing.assert_array_equal(result.numpy(), expected)


@few
@given(sizes, sizes, st.integers(2, 5))
def test_labels_in_half_precision_are_those_of_torch(size, shape, labels):
    array = np.random.default_rng(2).integers(0, labels, size).astype(np.int16)
    values = np.unique(array)
    maps = torch.from_numpy(np.stack([array == v for v in values])).float()
    interpolate = torch.nn.functional.interpolate
    weights = interpolate(1000 * maps[None], shape, mode="trilinear")[0].half()
    expected = values[weights.numpy().argmax(0)]
    result = resize_labels(torch.from_numpy(array), shape, ties="half").numpy()
    assert (result != expected).mean() <= 0.02  # ties within float32 rounding
