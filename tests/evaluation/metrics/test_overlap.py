import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.errors import GeometryError
from trivox.evaluation.metrics import overlap


def masks(seed, density=0.3):
    return np.random.default_rng(seed).random((2, 4, 5, 6)) < density


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6))
def test_dice_and_iou_are_symmetric_and_tied_to_each_other(seed):
    a, b = masks(seed)
    forth = overlap.confusion(a, b)
    back = overlap.confusion(b, a)
    dice = overlap.dice(forth)
    iou = overlap.iou(forth)
    assert (dice, iou) == (overlap.dice(back), overlap.iou(back))
    assert dice == pytest.approx(2 * iou / (1 + iou))
    assert overlap.sensitivity(forth) == overlap.precision(back)


def test_counts_cover_every_voxel_once():
    a, b = masks(1)
    counts = overlap.confusion(a, b)
    total = (
        counts.true_positive
        + counts.false_positive
        + counts.false_negative
        + counts.true_negative
    )
    assert total == a.size
    assert (counts.predicted, counts.expected) == (a.sum(), b.sum())
    assert overlap.specificity(counts) == pytest.approx((~a & ~b).sum() / (~b).sum())


def test_integer_masks_count_like_boolean_ones():
    a, b = masks(2)
    numbers = overlap.confusion(a.astype(np.uint8), b.astype(np.uint8))
    assert numbers == overlap.confusion(a, b)


def test_what_has_no_denominator_is_none():
    nothing = np.zeros((3, 3, 3), bool)
    everything = ~nothing
    both = overlap.confusion(nothing, nothing)
    metrics = (
        overlap.dice,
        overlap.iou,
        overlap.sensitivity,
        overlap.precision,
        overlap.volume_error_percent,
    )
    assert [metric(both) for metric in metrics] == [None] * 5
    assert overlap.specificity(overlap.confusion(everything, everything)) is None
    missed = overlap.confusion(nothing, everything)
    assert [metric(missed) for metric in metrics] == [0, 0, 0, None, -100]


def test_volume_error_is_signed():
    a, b = np.zeros((2, 10, 10, 10), bool)
    a[:5] = True
    b[:4] = True
    counts = overlap.confusion(a, b)
    assert overlap.volume_error_ml(counts, voxel_ml=0.002) == pytest.approx(0.2)
    assert overlap.volume_error_percent(counts) == pytest.approx(25)


def test_different_shapes_are_refused():
    with pytest.raises(GeometryError, match="one grid"):
        overlap.confusion(np.zeros((2, 2, 2), bool), np.zeros((2, 2, 3), bool))
