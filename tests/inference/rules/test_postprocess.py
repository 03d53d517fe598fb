import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label as components

from trivox.datasets.labels import LabelScheme
from trivox.inference.descriptions import LabelDescription
from trivox.inference.rules.postprocess import (
    Postprocessing,
    largest_component,
    largest_of_each,
)
from trivox.inference.rules.rule_trials import (
    LabelTrials,
    candidate_dice,
    choose_rules,
    evidence_of,
)

few = settings(max_examples=30, deadline=None, derandomize=True)
SCHEME = LabelScheme(labels={"organ": 1, "lesion": 2})
maps = st.builds(
    lambda seed: (
        np.random.default_rng(seed)
        .choice([0] * 20 + [1, 2, 2], (4, 7, 8))
        .astype(np.int16)
    ),
    st.integers(0, 10_000),
)


def image(*boxes):
    result = np.zeros((6, 12, 12), np.int16)
    for value, *box in boxes:
        result[tuple(slice(*edge) for edge in box)] = value
    return result


REFERENCE = image((1, (1, 5), (1, 5), (1, 5)), (2, (1, 5), (5, 8), (1, 5)))
SPECK = image((1, (0, 2), (10, 12), (10, 12)))
TWO_PARTS = image(
    (1, (1, 5), (1, 5), (1, 5)),
    (2, (1, 5), (5, 8), (1, 5)),
    (2, (1, 5), (8, 11), (9, 12)),
)


def choose(predictions, references):
    pairs = zip(predictions, references, strict=True)
    choice = choose_rules(
        [evidence_of(p, r, SCHEME, voxel_mm3=1.0) for p, r in pairs], SCHEME, seed=0
    )
    return choice.rules, choice.section["trials"]


def apply(rules, labels):
    return rules.apply(labels, SCHEME, voxel_mm3=1.0)


@few
@given(mask=arrays(bool, (4, 5, 6)))
def test_largest_component_is_scipys(mask):
    found = largest_component(mask)
    parts, count = components(mask, structure=np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    assert found.sum() == (sizes.max() if count else 0)
    assert not (found & ~mask).any()
    assert components(found, structure=np.ones((3, 3, 3)))[1] == min(count, 1)


@few
@given(labels=maps)
def test_largest_of_each_is_each_label_on_its_own(labels):
    found = largest_of_each(labels)
    for value in (1, 2):
        assert (found == value).sum() == largest_component(labels == value).sum()
        assert not ((found == value) & (labels != value)).any()
    assert set(np.unique(found)) == set(np.unique(labels)) | (
        {0} if (found != labels).any() else set()
    )


@few
@given(labels=maps)
def test_applying_twice_is_applying_once(labels):
    before = labels.copy()
    for rules in (
        Postprocessing(largest_foreground=True),
        Postprocessing(largest_of=(1, 2)),
    ):
        once = apply(rules, labels)
        assert np.array_equal(labels, before)
        assert np.array_equal(apply(rules, once), once)
    assert apply(Postprocessing(), labels) is labels


def test_a_speck_away_from_everything_is_removed_because_dice_rises():
    chosen, notes = choose([REFERENCE + SPECK], [REFERENCE])
    assert chosen.largest_foreground
    assert np.array_equal(apply(chosen, REFERENCE + SPECK), REFERENCE)
    assert any("whole foreground" in note and "kept" in note for note in notes)


def test_nothing_is_chosen_where_predictions_are_right():
    assert choose([REFERENCE, TWO_PARTS], [REFERENCE, TWO_PARTS])[0] == Postprocessing()


def test_a_rule_that_helps_one_case_but_hurts_more_is_left_out():
    chosen, _ = choose(
        [REFERENCE + SPECK, TWO_PARTS, TWO_PARTS], [REFERENCE, TWO_PARTS, TWO_PARTS]
    )
    assert not chosen.largest_foreground
    assert 2 not in chosen.largest_of


def test_a_label_is_cleaned_alone_where_only_that_helps():
    reference = image((1, (1, 5), (1, 5), (1, 5)), (2, (1, 5), (6, 9), (6, 9)))
    prediction = reference + image((1, (5, 6), (9, 11), (9, 11)))
    chosen, _ = choose([prediction], [reference])
    assert chosen == Postprocessing(largest_of=(1,))
    assert np.array_equal(apply(chosen, prediction), reference)


def test_ignored_voxels_do_not_count():
    reference = np.where(SPECK > 0, -1, REFERENCE)
    assert choose([REFERENCE + SPECK], [reference])[0] == Postprocessing()


def test_labels_that_never_occur_decide_nothing():
    empty = np.zeros_like(REFERENCE)
    assert choose([empty], [empty])[0] == Postprocessing()
    assert np.isnan(candidate_dice(empty, empty, 2)).all()


def test_candidate_dice_is_the_dice_of_each_candidate():
    dice = candidate_dice(REFERENCE + SPECK, REFERENCE, 2)
    assert dice.shape == (4, 2)
    assert dice[0, 0] == pytest.approx(2 * 64 / (64 + 64 + 8))
    assert np.allclose(dice[1:], 1)
    assert np.allclose(dice[:, 1], 1)


@few
@given(
    predicted=maps,
    reference=maps,
    whole=st.booleans(),
    alone=st.sampled_from([(), (1,), (2,), (1, 2)]),
)
def test_tables_give_the_dice_that_voxels_give_under_any_rules(
    predicted, reference, whole, alone
):
    rules = Postprocessing(largest_foreground=whole, largest_of=alone)
    table = LabelTrials(
        [evidence_of(predicted, reference, SCHEME, voxel_mm3=1.0)]
    ).dice(rules)[0]
    cleaned = apply(rules, predicted)
    for value, found in zip((1, 2), table, strict=True):
        a = cleaned == value
        b = reference == value
        expected = (
            2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else np.nan
        )
        assert found == pytest.approx(expected, nan_ok=True)


def test_the_gain_of_labels_is_cross_fitted_as_well():
    evidence = [evidence_of(REFERENCE + SPECK, REFERENCE, SCHEME, voxel_mm3=1.0)] * 3
    gain = choose_rules(evidence, SCHEME, seed=0).section["gain"]
    assert gain["organ"]["cross_fitted"] == pytest.approx(
        gain["organ"]["on_the_same_cases"]
    )
    assert gain["organ"]["on_the_same_cases"] == pytest.approx(1 - 128 / 136)
    speck = image((1, (0, 1), (9, 10), (0, 2)))
    evidence = [
        evidence_of(p, TWO_PARTS, SCHEME, voxel_mm3=1.0)
        for p in (TWO_PARTS, TWO_PARTS + speck)
    ]
    gain = choose_rules(evidence, SCHEME, seed=0).section["gain"]
    assert gain["organ"]["on_the_same_cases"] > 0
    assert gain["organ"]["on_the_same_cases"] > gain["organ"]["cross_fitted"]


def test_labels_that_never_occur_have_no_gain():
    empty = np.zeros_like(REFERENCE)
    choice = choose_rules(
        [evidence_of(empty, empty, SCHEME, voxel_mm3=1.0)] * 2, SCHEME, seed=0
    )
    assert choice.section["gain"]["organ"] == {
        "on_the_same_cases": None,
        "cross_fitted": None,
    }


def test_rules_of_older_bundles_still_load():
    older = {"largest_foreground": True, "largest_of": [2]}
    field = LabelDescription.model_fields["postprocessing"]
    assert Postprocessing.model_validate(older) == Postprocessing(
        largest_foreground=True, largest_of=(2,)
    )
    assert field.annotation is Postprocessing
