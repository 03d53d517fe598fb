import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.inference.doubt.calibration import (
    Abstention,
    choose_abstention,
    fit_temperature,
    foreground_entropy,
)

few = settings(max_examples=15, deadline=None, derandomize=True)


def calibrated(count=40_000, classes=4, seed=0):
    """Logits whose softmax is the chance with which the labels were drawn."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator) * 2
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def nll(logits, labels, temperature):
    return float(
        torch.nn.functional.cross_entropy(logits.double() / temperature, labels)
    )


# -- temperature -----------------------------------------------------------------------
@few
@given(temperature=st.floats(0.2, 6), classes=st.integers(2, 6), seed=st.integers(0, 9))
def test_a_known_temperature_is_recovered(temperature, classes, seed):
    logits, labels = calibrated(classes=classes, seed=seed)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(
        temperature, rel=0.05
    )


@few
@given(scale=st.floats(0.3, 5), seed=st.integers(0, 99))
def test_the_fitted_temperature_beats_every_other(scale, seed):
    logits, labels = calibrated(2000, seed=seed)
    best = fit_temperature(logits * scale, labels)
    for other in (1.0, best * 0.9, best * 1.1):
        assert (
            nll(logits * scale, labels, best)
            <= nll(logits * scale, labels, other) + 1e-9
        )


@pytest.mark.parametrize("right", [True, False])
def test_a_sample_without_a_minimum_teaches_nothing(right):
    """All right: the colder the better; all wrong: the hotter."""
    logits = torch.tensor([[0.0, 1.0]]).expand(50, 2)
    assert fit_temperature(logits, torch.full((50,), int(right))) == 1.0


# -- doubt of a case -------------------------------------------------------------------
def test_foreground_entropy_looks_at_the_predicted_foreground_alone():
    logits = torch.tensor([[0.0, 0.0, 0.1], [9.0, 0.0, 0.0], [0.0, 9.0, 9.1]])
    expected = np.mean(
        [float(torch.special.entr(logits[i].softmax(0)).sum()) for i in (0, 2)]
    )
    assert foreground_entropy(logits, exclusive=True) == pytest.approx(expected)
    assert foreground_entropy(logits, exclusive=True, temperature=2) > expected
    assert foreground_entropy(logits[1:2], exclusive=True) is None
    assert foreground_entropy(logits[:0], exclusive=True) is None
    regions = torch.tensor([[-1.0, -2.0], [0.0, 1e-4]])
    assert foreground_entropy(regions, exclusive=False) == pytest.approx(
        math.log(2), abs=1e-6
    )


# -- when to flag ----------------------------------------------------------------------
def rule(**changes):
    given = {
        "threshold": 0.5,
        "poor_dice": 0.7,
        "rule": "",
        "cases": 9,
        "poor": 1,
        "flagged": 1,
        "flagged_poor": 1,
    }
    return Abstention(**{**given, **changes})


def test_a_case_above_the_threshold_is_flagged_with_its_reason():
    assert rule().reason(0.5) is None
    assert "0.510" in rule().reason(0.51)
    assert "above 0.500" in rule().reason(0.51)


def test_an_empty_prediction_is_strange_unless_validation_had_empty_cases():
    assert rule(empty="flag").reason(None) == "no foreground was found"
    assert rule(empty="pass").reason(None) is None


def test_poor_cases_are_told_from_the_others():
    dice = [0.9, 0.91, 0.89, 0.92, 0.88, 0.9, 0.4, 0.3]
    score = [0.2, 0.21, 0.19, 0.2, 0.22, 0.2, 0.6, 0.5]
    found = choose_abstention(score, dice)
    assert found.threshold == pytest.approx((0.22 + 0.5) / 2)
    assert (found.cases, found.poor, found.flagged, found.flagged_poor) == (8, 2, 2, 2)
    assert 0.4 < found.poor_dice < 0.88
    assert [found.reason(s) is not None for s in score] == [False] * 6 + [True] * 2


def test_without_a_poor_case_what_was_never_seen_is_flagged():
    found = choose_abstention(
        [0.2, 0.3, 0.25, 0.22, 0.28], [0.9, 0.91, 0.92, 0.93, 0.9]
    )
    assert (found.threshold, found.poor, found.flagged) == (0.3, 0, 0)


def test_doubt_that_points_the_wrong_way_flags_nobody_of_validation():
    dice = [0.9, 0.91, 0.89, 0.92, 0.88, 0.9, 0.4, 0.3]
    found = choose_abstention([0.5] * 6 + [0.1, 0.1], dice)
    assert (found.threshold, found.flagged) == (0.5, 0)


def test_few_cases_give_no_rule():
    assert choose_abstention([0.1] * 4, [0.9] * 4) is None
    assert choose_abstention([0.1] * 4 + [None], [0.9] * 5) is None
    assert choose_abstention([0.1] * 5, [0.9] * 4 + [math.nan]) is None
    assert choose_abstention([0.1] * 5, [0.9] * 5, seen_empty=True).empty == "pass"
