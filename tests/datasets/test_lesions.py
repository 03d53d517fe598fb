"""Which labels are the lesion, and what stands beside it."""

import pytest

from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.brats import FAMILIES
from trivox.datasets.lesions import (
    lesion_indices,
    mask_table,
    other_targets,
    outputs_within,
)
from trivox.errors import RecipeError

PANCREAS = LabelScheme(labels={"pancreas": 1, "lesion": 2})


@pytest.mark.parametrize(
    ("labels", "wanted", "expected"),
    [
        ({"pancreas": 1, "lesion": 2}, (), (2,)),
        ({"liver": 7, "Liver tumour": 300, "cyst": 301}, (), (2, 3)),
        ({"Anterior": 1, "Posterior": 2}, (), (1, 2)),
        ({"pancreas": 1, "lesion": 2}, ("pancreas",), (1,)),
    ],
)
def test_the_lesion_is_asked_for_or_known_by_its_name_or_all_foreground(
    labels, wanted, expected
):
    assert lesion_indices(LabelScheme(labels=labels), wanted) == expected


def test_a_name_that_no_target_has_is_refused():
    with pytest.raises(
        RecipeError,
        match=r"'classification.lesion': \['tumor'\] are not among pancreas, lesion",
    ):
        lesion_indices(PANCREAS, ("tumor",))


def test_in_brats_the_lesion_is_the_whole_tumour():
    scheme = (
        next(iter(FAMILIES.values())).labels
        if isinstance(FAMILIES, dict)
        else FAMILIES[0].labels
    )
    lesion = lesion_indices(scheme)
    assert lesion == tuple(range(1, len(scheme.values)))
    assert list(other_targets(scheme, lesion)) == ["TC", "ET"]
    assert outputs_within(scheme, lesion) == (0, 1, 2)
    assert outputs_within(scheme, scheme.targets["ET"]) == (2,)
    assert outputs_within(scheme, (1,)) == (
        1,
    )  # necrosis alone: the smallest region that holds it


def test_many_other_targets_are_left_out():
    labels = {f"organ {i}": i for i in range(1, 7)} | {"tumour": 9}
    assert other_targets(LabelScheme(labels=labels), (7,)) == {}


def test_masks_are_lesion_organ_and_others_in_this_order():
    table = mask_table(PANCREAS, (2,))
    assert table.tolist() == [
        [False, False, True],
        [False, True, True],
        [False, True, False],
    ]
