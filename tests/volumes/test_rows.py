"""What is made of an image some rows at a time is what is made of it as a whole."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.volumes import rows as module
from trivox.volumes.resampling import resize_image, resize_slices
from trivox.volumes.rows import resize_rows, resize_rows_by_slices

few = settings(max_examples=25, deadline=None, derandomize=True)
shapes = st.tuples(*[st.integers(1, 24)] * 3)
ROUNDING = {"rtol": 0, "atol": 1e-5}
"""Products of a few values are added up in another order, those of scans are not."""


class Made:
    """Rows of a tensor; notes how many were asked for at once."""

    def __init__(self, image):
        self.image = image
        self.most = 0

    @property
    def size(self):
        return tuple(self.image.shape)

    def take(self, first, last):
        self.most = max(self.most, last - first)
        return self.image[:, first:last].clone()


def drawn(shape, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(channels, *shape, generator=generator)


@pytest.fixture(autouse=True)
def in_portions(monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 0)
    monkeypatch.setattr(module, "A_PORTION", 400)


@given(
    shapes,
    shapes,
    st.integers(1, 2),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([None, 0, 1, 2]),
)
@few
def test_resizing_rows_is_resizing_the_image(shape, new, channels, order, axis):
    image = drawn(shape, channels)
    wanted = resize_image(image.clone(), new, order=order, nearest_axis=axis)
    made = resize_rows(Made(image), new, order=order, nearest_axis=axis)
    torch.testing.assert_close(made, wanted, **ROUNDING)


@given(shapes, shapes, st.integers(0, 2), st.sampled_from([0, 1]))
@few
def test_slices_are_resized_alike(shape, new, axis, across):
    image = drawn(shape, 2)
    options = {"axis": axis, "order": 3, "order_across": across}
    wanted = resize_slices(image.clone(), new, **options)
    made = resize_rows_by_slices(Made(image), new, **options)
    torch.testing.assert_close(made, wanted, **ROUNDING)


@pytest.mark.parametrize("new", [(10, 32, 40), (20, 30, 33), (9, 90, 75), (31, 64, 30)])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_of_a_scan_nothing_changes_to_the_last_bit(monkeypatch, new, axis):
    monkeypatch.setattr(module, "A_PORTION", 20_000)
    image = drawn((20, 64, 66))
    wanted = resize_image(image.clone(), new, nearest_axis=axis)
    assert torch.equal(resize_rows(Made(image), new, nearest_axis=axis), wanted)
    by_slices = resize_slices(image.clone(), new, axis=axis or 0)
    made = resize_rows_by_slices(Made(image), new, axis=axis or 0)
    assert torch.equal(made, by_slices)


@pytest.mark.parametrize("new", [(70, 9, 9), (150, 8, 8), (290, 8, 8), (1, 2, 2)])
def test_bands_of_many_rows_are_those_of_the_image(new):
    image = drawn((200, 10, 11))
    wanted = resize_image(image.clone(), new)
    torch.testing.assert_close(resize_rows(Made(image), new), wanted, **ROUNDING)


def test_a_long_image_is_never_made_as_a_whole():
    made = Made(drawn((600, 12, 12)))
    resize_rows(made, (300, 6, 6))
    assert made.most < 200


def test_its_values_are_clipped_to_those_of_all_rows():
    """Also where some rows count nowhere in the result."""
    image = torch.zeros(1, 300, 6, 6)
    image[:, 100] = 5
    image[:, 151] = 7
    image[:, 0, 0, 0] = -3
    wanted = resize_image(image.clone(), (3, 6, 5))
    made = resize_rows(Made(image), (3, 6, 5))
    torch.testing.assert_close(made, wanted, **ROUNDING)
    assert made.min() >= -3
    assert made.max() <= 7


@pytest.mark.parametrize("limit", [0, math.inf])
def test_what_keeps_its_size_stays(monkeypatch, limit):
    monkeypatch.setattr(module, "AT_ONCE", limit)
    image = drawn((4, 5, 6))
    assert torch.equal(resize_rows(Made(image), (4, 5, 6)), image)
