"""Resampling: matrices along the axes equal what skimage, scipy and one-hot
interpolation compute.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.transform import resize

from trivox.volumes.blurring import blur_matrix, low_resolution_matrix
from trivox.volumes.resampling import (
    nearest,
    resize_image,
    resize_labels,
    spline_matrix,
)

SHAPES = [
    ((12, 14, 16), (18, 21, 24)),  # isotropic, up
    ((18, 21, 24), (12, 14, 16)),  # isotropic, down
    ((7, 23, 31), (13, 17, 40)),  # odd, up and down
    ((5, 40, 37), (20, 41, 36)),  # anisotropic
    ((3, 5, 200), (3, 5, 333)),  # longer than a band, up
    ((4, 299, 3), (2, 141, 3)),  # longer than a band, down
    ((1, 9, 8), (1, 20, 5)),  # a slice
    ((2, 2, 2), (5, 3, 7)),
]
axes = st.tuples(*(st.integers(2, 18),) * 3)
few = settings(max_examples=12, deadline=None, derandomize=True)


def blobs(shape, *, seed=0, smooth=1.0):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, smooth).astype(np.float32)


def label_map(shape, labels, *, seed=0):
    """Smooth regions of several labels."""
    fields = [
        blobs(shape, seed=seed + index, smooth=1.5) for index in range(len(labels))
    ]
    return np.array(labels, dtype=np.int16)[np.argmax(fields, axis=0)]


def as_skimage(array, shape):
    return resize(
        array.astype(np.float64),
        shape,
        order=3,
        mode="edge",
        anti_aliasing=False,
        clip=True,
    )


@pytest.mark.oracle
@pytest.mark.parametrize(("old", "new"), SHAPES)
def test_cubic_resize_equals_skimage(old, new):
    image = np.random.default_rng(1).normal(size=old).astype(np.float32)
    resized = resize_image(torch.from_numpy(image[None]), new)[0].numpy()
    np.testing.assert_allclose(resized, as_skimage(image, new), atol=1e-5)


@pytest.mark.oracle
@few
@given(old=axes, new=axes)
def test_cubic_resize_equals_skimage_for_any_sizes(old, new):
    image = blobs(old, seed=sum(old))
    np.testing.assert_allclose(
        resize_image(torch.from_numpy(image[None]), new)[0].numpy(),
        as_skimage(image, new),
        atol=1e-5,
    )


@pytest.mark.oracle
@few
@given(old=axes, new=axes)
def test_linear_resize_equals_torch(old, new):
    image = torch.from_numpy(blobs(old, seed=3))[None]
    theirs = F.interpolate(
        image[None], size=new, mode="trilinear", align_corners=False
    )[0]
    torch.testing.assert_close(
        resize_image(image, new, order=1), theirs, atol=1e-5, rtol=0
    )


@pytest.mark.oracle
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("new", [4, 5, 13, 27])
def test_the_nearest_axis_equals_scipy_order_0_along_it(axis, new):
    shape = [9, 9, 9]
    image = np.random.default_rng(axis).normal(size=shape).astype(np.float32)
    target = list(shape)
    target[axis] = new
    centres = [np.arange(9.0)] * 3
    centres[axis] = (np.arange(new) + 0.5) * 9 / new - 0.5
    theirs = ndimage.map_coordinates(
        image, np.meshgrid(*centres, indexing="ij"), order=0, mode="nearest"
    )
    resized = resize_image(
        torch.from_numpy(image[None]), tuple(target), nearest_axis=axis
    )[0].numpy()
    np.testing.assert_array_equal(resized, theirs)


def test_the_nearest_axis_makes_no_new_values_along_it_and_stays_cubic_in_plane():
    image = blobs((6, 15, 14), seed=2)
    resized = resize_image(torch.from_numpy(image[None]), (15, 21, 20), nearest_axis=0)[
        0
    ].numpy()
    slices = np.stack([as_skimage(image[z], (21, 20)) for z in nearest(6, 15).tolist()])
    # each slice alone is clipped to its own range by skimage, the volume to that of all
    inside = np.abs(resized - slices) < 1e-5
    assert inside.mean() > 0.98
    assert (resized >= image.min()).all()
    assert (resized <= image.max()).all()


@few
@given(old=axes, new=axes)
def test_a_resized_image_keeps_to_the_range_of_each_channel(old, new):
    image = torch.from_numpy(np.stack([blobs(old), 100 + blobs(old, seed=1)]))
    resized = resize_image(image, new)
    for before, after in zip(image, resized, strict=True):
        assert before.min() <= after.min()
        assert after.max() <= before.max()


def test_channels_are_resized_each_alone():
    image = torch.randn(3, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    together = resize_image(image, (9, 5, 12))
    for channel, alone in zip(together, image, strict=True):
        torch.testing.assert_close(channel, resize_image(alone[None], (9, 5, 12))[0])


def test_the_same_shape_changes_nothing():
    image = torch.randn(2, 4, 5, 6)
    labels = torch.randint(0, 4, (4, 5, 6), dtype=torch.int16)
    assert torch.equal(resize_image(image, (4, 5, 6)), image)
    assert torch.equal(resize_labels(labels, (4, 5, 6)), labels)


def test_a_constant_stays_constant():
    torch.testing.assert_close(
        resize_image(torch.full((1, 5, 6, 7), 3.25), (9, 4, 140)),
        torch.full((1, 9, 4, 140), 3.25),
    )


def test_the_source_is_left_alone():
    image = torch.randn(1, 5, 6, 7)
    before = image.clone()
    resize_image(image, (9, 9, 9))
    assert torch.equal(image, before)


def one_hot_argmax(labels, new, values):
    """Linear interpolation of each label's indicator: winning label, and how far it
    lies before the second.
    """
    indicators = torch.from_numpy(
        np.stack([labels == value for value in values])
    ).double()
    share = F.interpolate(
        indicators[None], size=new, mode="trilinear", align_corners=False
    )[0]
    two = share.topk(2, dim=0).values
    return np.array(values)[share.argmax(0).numpy()], (two[0] - two[1]).numpy()


@few
@given(old=axes, new=axes, seed=st.integers(0, 99))
def test_resized_labels_are_the_argmax_of_resized_one_hots_except_ties(old, new, seed):
    values = [-1, 0, 3, 300]
    labels = label_map(old, values, seed=seed)
    resized = resize_labels(torch.from_numpy(labels), new).numpy()
    theirs, lead = one_hot_argmax(labels, new, values)
    assert (lead[resized != theirs] < 1e-5).all()


def test_ties_are_rare_at_an_ordinary_ratio():
    labels = label_map((20, 24, 28), list(range(11)))
    new = (29, 37, 43)
    theirs, lead = one_hot_argmax(labels, new, list(range(11)))
    differs = resize_labels(torch.from_numpy(labels), new).numpy() != theirs
    assert differs.mean() <= 0.005
    assert (lead[differs] < 1e-5).all()


def test_ties_go_to_the_smallest_label():
    labels = torch.tensor([[[0, 4, 4, 2]]], dtype=torch.int16)
    assert resize_labels(labels, (1, 1, 2)).tolist() == [[[0, 2]]]


def test_no_new_labels_appear():
    labels = label_map((9, 10, 11), [0, 7, 300])
    assert set(np.unique(resize_labels(torch.from_numpy(labels), (20, 7, 31)))) <= {
        0,
        7,
        300,
    }


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_nearest_axis_takes_whole_slices_of_labels(axis):
    labels = torch.from_numpy(label_map((6, 6, 6), [0, 1, 2]))
    new = [6, 6, 6]
    new[axis] = 13
    expected = labels.index_select(axis, nearest(6, 13))
    assert torch.equal(resize_labels(labels, tuple(new), nearest_axis=axis), expected)


def test_a_label_survives_there_and_back():
    labels = torch.from_numpy(label_map((14, 16, 18), [0, 1, 2]))
    back = resize_labels(resize_labels(labels, (42, 48, 54)), (14, 16, 18))
    assert torch.equal(back, labels)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize(("size", "new"), [(1, 4), (5, 1), (7, 20), (20, 7), (130, 67)])
def test_rows_of_an_operator_sum_to_one(order, size, new):
    matrix = spline_matrix(size, new, order)
    assert matrix.shape == (new, size)
    torch.testing.assert_close(matrix.sum(1), torch.ones(new), atol=1e-5, rtol=0)


@pytest.mark.oracle
@pytest.mark.parametrize("size", [1, 6, 30])
def test_blur_matrix_equals_scipys_gaussian_filter(size):
    signal = np.random.default_rng(0).normal(size=size)
    for sigma in (0.3, 0.5, 0.75, 1.0, 2.5):
        theirs = ndimage.gaussian_filter1d(signal, sigma, truncate=4, mode="nearest")
        np.testing.assert_allclose(
            blur_matrix(size, sigma).double().numpy() @ signal, theirs, atol=1e-5
        )


def test_low_resolution_at_full_size_is_the_identity():
    torch.testing.assert_close(low_resolution_matrix(9, 9), torch.eye(9))


def test_low_resolution_at_one_point_is_constant():
    signal = torch.arange(7.0)
    assert (low_resolution_matrix(7, 1) @ signal).unique().tolist() == [3.0]


@few
@given(size=st.integers(1, 40), data=st.data())
def test_low_resolution_equals_nearest_down_and_linear_up(size, data):
    coarse = data.draw(st.integers(1, size))
    signal = torch.randn(1, 1, size, generator=torch.Generator().manual_seed(size))
    down = signal[..., nearest(size, coarse)]
    up = F.interpolate(down, size=size, mode="linear", align_corners=False)[0, 0]
    torch.testing.assert_close(
        low_resolution_matrix(size, coarse) @ signal[0, 0], up, atol=1e-5, rtol=0
    )
