import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label as components

from trivox.inference.postprocess import (
    Postprocessing,
    candidate_dice,
    choose_postprocessing,
    largest_component,
    largest_of_each,
)

few = settings(max_examples=30, deadline=None, derandomize=True)
maps = arrays(np.int16, (4, 5, 6), elements=st.sampled_from([0, 0, 0, 1, 2]))


def image(*boxes):
    result = np.zeros((6, 12, 12), np.int16)
    for value, *box in boxes:
        result[tuple(slice(*edge) for edge in box)] = value
    return result


REFERENCE = image((1, (1, 5), (1, 5), (1, 5)), (2, (1, 5), (5, 8), (1, 5)))
SPECK = image((1, (0, 2), (10, 12), (10, 12)))
TWO_PARTS = image((1, (1, 5), (1, 5), (1, 5)), (2, (1, 5), (5, 8), (1, 5)), (2, (1, 5), (8, 11), (9, 12)))


def choose(predictions, references, labels=2):
    pairs = zip(predictions, references, strict=True)
    return choose_postprocessing(np.stack([candidate_dice(p, r, labels) for p, r in pairs]))


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
    assert set(np.unique(found)) == set(np.unique(labels)) | ({0} if (found != labels).any() else set())


@few
@given(labels=maps)
def test_applying_twice_is_applying_once(labels):
    before = labels.copy()
    for rules in (Postprocessing(largest_foreground=True), Postprocessing(largest_of=(1, 2))):
        once = rules.apply(labels)
        assert np.array_equal(labels, before)
        assert np.array_equal(rules.apply(once), once)
    assert np.array_equal(Postprocessing().apply(labels), labels)


def test_a_speck_away_from_everything_is_removed_because_dice_rises():
    chosen, notes = choose([REFERENCE + SPECK], [REFERENCE])
    assert chosen.largest_foreground
    assert np.array_equal(chosen.apply(REFERENCE + SPECK), REFERENCE)
    assert any("whole foreground" in note and "kept" in note for note in notes)


def test_nothing_is_chosen_where_predictions_are_right():
    assert choose([REFERENCE, TWO_PARTS], [REFERENCE, TWO_PARTS])[0] == Postprocessing()


def test_a_rule_that_helps_one_case_but_hurts_more_is_left_out():
    chosen, _ = choose([REFERENCE + SPECK, TWO_PARTS, TWO_PARTS], [REFERENCE, TWO_PARTS, TWO_PARTS])
    assert not chosen.largest_foreground
    assert 2 not in chosen.largest_of


def test_a_label_is_cleaned_alone_where_only_that_helps():
    reference = image((1, (1, 5), (1, 5), (1, 5)), (2, (1, 5), (6, 9), (6, 9)))
    prediction = reference + image((1, (5, 6), (9, 11), (9, 11)))
    chosen, _ = choose([prediction], [reference])
    assert chosen == Postprocessing(largest_of=(1,))
    assert np.array_equal(chosen.apply(prediction), reference)


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
