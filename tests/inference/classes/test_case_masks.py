import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from trivox.datasets.labels import LabelScheme
from trivox.inference.classes.case_masks import case_masks

PANCREAS = LabelScheme(labels={"pancreas": 1, "lesion": 2})
BRATS = LabelScheme(
    labels={"NCR": 1, "ED": 2, "ET": 4},
    regions={"WT": (1, 2, 4), "TC": (1, 4), "ET": (4,)},
    region_order=(2, 1, 4),
)
SPACING = (2.0, 0.73, 0.73)


def random_blob(seed, shape=(9, 14, 15)):
    field = ndimage.gaussian_filter(
        np.random.default_rng(seed).standard_normal(shape), 1.5
    )
    return np.where(
        field > np.quantile(field, 0.9),
        2,
        np.where(field > np.quantile(field, 0.6), 1, 0),
    )


def test_the_four_come_first_then_the_other_targets():
    assert list(case_masks(random_blob(0), PANCREAS, (2,), SPACING)) == [
        "lesion",
        "core",
        "rim",
        "organ",
        "pancreas",
    ]
    indices = np.arange(4).repeat(54).reshape(6, 6, 6)
    assert list(case_masks(indices, BRATS, (1, 2, 3), SPACING)) == [
        "lesion",
        "core",
        "rim",
        "organ",
        "TC",
        "ET",
    ]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), spacing=st.tuples(*[st.floats(0.4, 5)] * 3))
def test_the_rim_is_all_within_three_millimetres_outside(seed, spacing):
    indices = random_blob(seed)
    masks = case_masks(indices, PANCREAS, (2,), spacing)
    inside = np.argwhere(indices == 2) * spacing
    outside = np.argwhere(indices != 2)
    nearest = np.linalg.norm((outside * spacing)[:, None] - inside[None], axis=2).min(1)
    reach = max(3.0, min(spacing))
    clear = np.abs(nearest - reach) > 1e-4  # not those on the edge itself
    np.testing.assert_array_equal(
        masks["rim"][tuple(outside.T)][clear], (nearest <= reach)[clear]
    )
    assert not (masks["rim"] & masks["lesion"]).any()


def test_the_rim_of_a_lesion_at_the_border_stays_inside_the_array():
    indices = np.zeros((6, 7, 8), int)
    indices[0, 0, :3] = 2
    masks = case_masks(indices, PANCREAS, (2,), (1, 1, 1))
    assert masks["rim"][0, 0, 3:6].all()
    assert not masks["rim"][0, 0, 6:].any()
    assert not masks["rim"][4:].any()


@pytest.mark.parametrize("seed", range(3))
def test_the_core_is_the_lesion_eroded_by_one_voxel(seed):
    indices = random_blob(seed, (14, 20, 20))
    masks = case_masks(indices, PANCREAS, (2,), SPACING)
    np.testing.assert_array_equal(masks["core"], ndimage.binary_erosion(indices == 2))


def test_the_core_of_a_thin_lesion_is_the_lesion():
    indices = np.zeros((6, 6, 6), int)
    indices[2, 1:5, 1:5] = 2
    masks = case_masks(indices, PANCREAS, (2,), SPACING)
    np.testing.assert_array_equal(masks["core"], masks["lesion"])


def test_without_a_lesion_its_masks_are_empty_and_the_organ_is_not():
    masks = case_masks(np.ones((4, 4, 4), int), PANCREAS, (2,), SPACING)
    assert [name for name, mask in masks.items() if mask.any()] == ["organ", "pancreas"]


def test_ignored_voxels_are_background():
    indices = random_blob(1)
    ignored = np.where(indices == 0, -1, indices)
    for first, second in zip(
        case_masks(indices, PANCREAS, (2,), SPACING).values(),
        case_masks(ignored, PANCREAS, (2,), SPACING).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(first, second)


def test_many_targets_get_no_masks_of_their_own():
    four = LabelScheme(labels={f"organ {i}": i for i in range(1, 6)})
    five = LabelScheme(labels={f"organ {i}": i for i in range(1, 7)})
    empty = np.zeros((3, 3, 3), int)
    assert len(case_masks(empty, four, (5,), SPACING)) == 8
    assert len(case_masks(empty, five, (6,), SPACING)) == 4


def test_a_target_called_like_one_of_the_four_does_not_replace_it():
    scheme = LabelScheme(labels={"organ": 1, "lesion": 2, "vessel": 3})
    indices = np.arange(4).repeat(16).reshape(4, 4, 4)
    masks = case_masks(indices, scheme, (2,), SPACING)
    np.testing.assert_array_equal(masks["organ"], indices > 0)
    np.testing.assert_array_equal(masks["organ label"], indices == 1)
