import numpy as np
import pytest

from drawn_case import view
from trivox.evaluation.report.case_view import (
    best_slices,
    clearest_channel,
    member_mask,
)


def test_cropping_keeps_world_positions():
    whole = view()
    part = whole.cropped(((2, 8), (5, 15), (3, 12)))
    for axis, (start, index) in enumerate(((2, 4), (5, 9), (3, 6))):
        assert part.position_mm(axis, index - start) == pytest.approx(
            whole.position_mm(axis, index)
        )
    assert np.array_equal(part.reference, whole.reference[2:8, 5:15, 3:12])


def test_positions_are_those_of_the_affine():
    assert view().position_mm(0, 4) == pytest.approx(-5 + 3 * 4)
    assert view().position_mm(2, 6) == pytest.approx(-20 + 1.5 * 6)


def test_zoom_is_a_cube_in_mm_that_holds_all_labels():
    large = np.zeros((60, 200, 150), np.int16)
    large[20:22, 100:110, 40:60] = 1
    zoomed = view(
        image=np.ones((1, *large.shape)),
        prediction=large,
        reference=None,
        channels=["a"],
    ).zoomed()
    assert (zoomed.prediction > 0).sum() == (large > 0).sum()
    sides = np.multiply(zoomed.shape, zoomed.spacing)
    assert np.ptp(sides) <= max(zoomed.spacing)
    assert sides.max() < 60


def test_margins_without_any_signal_are_cut_but_never_a_label():
    whole = view()
    whole.image[:, :5] = whole.image[:, :, :9] = (
        0  # the labels reach from row 8 and slice 3 on
    )
    part = whole.without_margin()
    assert part.shape == (9, 12, 16)
    assert (part.reference > 0).sum() == (whole.reference > 0).sum()


def test_the_slice_counts_a_small_target_as_much_as_a_large_one():
    labels = np.zeros((10, 20, 20), np.int16)
    labels[2] = 1
    labels[3:7, 5:15, 5:15] = 1
    labels[6, 9:11, 9:11] = 2
    assert best_slices(labels, [(1, 2), (2,)])[0] == 6
    assert best_slices(labels, [(1, 2)])[0] == 2


def test_without_labels_the_middle_is_shown():
    assert best_slices(np.zeros((9, 5, 1), np.int16), [(1,)]) == (4, 2, 0)
    assert best_slices(np.full((9, 5, 1), -1, np.int16), [(1,)]) == (4, 2, 0)


def test_ignored_voxels_belong_to_no_target():
    assert member_mask(np.array([-1, 0, 1, 7]), [1, 3]).tolist() == [
        False,
        False,
        True,
        False,
    ]


def test_the_clearest_channel_is_the_one_in_which_the_mask_stands_out():
    whole = view(count=4)
    mask = whole.reference > 0
    whole.image[2][mask] += 4
    whole.image[3] *= 100  # a larger scale alone shows nothing
    whole.image[1] = 0
    assert clearest_channel(whole.image, mask) == 2
    assert clearest_channel(whole.image, mask & False) == 0
    assert clearest_channel(whole.image * 0, mask) == 0


def test_depth_counts_the_targets_around():
    nested = view(targets={"a": (1, 2, 3), "b": (1, 3), "c": (3,), "d": (4,)})
    assert [nested.depth(name) for name in nested.targets] == [0, 1, 2, 0]
    assert nested.overlapping
    assert not view(targets={"a": (1,), "b": (2,)}).overlapping
