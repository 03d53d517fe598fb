import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets.boxes import NOTHING, box_of


def test_box_holds_exactly_the_mask():
    mask = np.zeros((9, 8, 7), bool)
    mask[2, 3, 4] = mask[5, 1, 6] = True
    assert box_of(mask) == (slice(2, 6), slice(1, 4), slice(4, 7))
    assert box_of(np.zeros_like(mask)) is None
    assert mask[NOTHING].size == 0


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), margin=st.tuples(*[st.integers(0, 4)] * 3))
def test_the_box_is_the_smallest_around_the_mask_plus_its_margin(seed, margin):
    mask = np.random.default_rng(seed).random((6, 7, 8)) > 0.97
    box = box_of(mask, margin)
    if not mask.any():
        assert box is None
        return
    places = np.argwhere(mask)
    low = places.min(0) - margin
    high = places.max(0) + margin + 1
    assert [(s.start, s.stop) for s in box] == [
        (max(a, 0), min(b, n)) for a, b, n in zip(low, high, mask.shape, strict=True)
    ]
