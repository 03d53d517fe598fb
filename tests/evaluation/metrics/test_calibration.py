import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from trivox.evaluation.metrics.calibration import (
    adaptive_calibration_error,
    area_under_roc,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
    measure_calibration,
    negative_log_likelihood,
    rank_correlation,
    reliability_curve,
    risk_coverage,
    top_label,
)

few = settings(max_examples=25, deadline=None, derandomize=True)
CONFIDENCE = np.array([0.55, 0.59, 0.9, 1.0])
CORRECT = np.array([True, False, True, False])


def drawn(count, classes, seed=0):
    """Probabilities and labels that were drawn with them."""
    rng = np.random.default_rng(seed)
    chance = rng.dirichlet(np.full(classes, 0.5), count)
    labels = (rng.random((count, 1)) > chance.cumsum(1)).sum(1).clip(max=classes - 1)
    return chance, labels


# -- by hand ---------------------------------------------------------------------------
def test_a_case_computed_by_hand():
    """Ten bins: (0.5, 0.6] holds 0.55 and 0.59, half of them right; (0.8, 0.9] 0.9,
    right; (0.9, 1] 1, wrong.
    """
    gaps = [0.57 - 0.5, 1 - 0.9, 1 - 0.0]
    assert expected_calibration_error(CONFIDENCE, CORRECT, bins=10) == pytest.approx(
        np.dot(gaps, [0.5, 0.25, 0.25])
    )
    assert maximum_calibration_error(CONFIDENCE, CORRECT, bins=10) == pytest.approx(1.0)
    # two bins of equal count: {0.55, 0.59} and {0.9, 1.0}
    assert adaptive_calibration_error(CONFIDENCE, CORRECT, bins=2) == pytest.approx(
        ((0.57 - 0.5) + (0.95 - 0.5)) / 2
    )
    curve = reliability_curve(CONFIDENCE, CORRECT, bins=10)
    assert curve["count"] == [0, 0, 0, 0, 0, 2, 0, 0, 1, 1]
    assert curve["confidence"][5] == pytest.approx(0.57)
    assert curve["accuracy"][5:] == [0.5, None, None, 1.0, 0.0]
    assert curve["confidence"][:5] == [None] * 5


def test_proper_scores_computed_by_hand():
    chance = np.array([[0.7, 0.2, 0.1], [0.0, 0.5, 0.5]])
    labels = np.array([0, 2])
    assert brier_score(chance, labels) == pytest.approx(
        ((0.3**2 + 0.2**2 + 0.1**2) + (0.5**2 + 0.5**2)) / 2
    )
    assert negative_log_likelihood(chance, labels) == pytest.approx(
        -(math.log(0.7) + math.log(0.5)) / 2
    )
    assert negative_log_likelihood(
        np.array([[1.0, 0.0]]), np.array([1])
    ) == pytest.approx(-math.log(1e-12))
    assert brier_score(np.array([[1.0, 0.0]]), np.array([1])) == 2
    confidence, correct = top_label(chance, labels)
    assert confidence.tolist() == [0.7, 0.5]
    assert correct.tolist() == [True, False]  # a tie goes to the smaller class


def test_classwise_error_of_two_classes_by_hand():
    chance = np.array([[0.75, 0.25], [0.75, 0.25]])
    labels = np.array([0, 1])
    assert classwise_calibration_error(chance, labels, bins=4) == pytest.approx(0.25)


# -- laws ------------------------------------------------------------------------------
@few
@given(classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_what_is_drawn_with_its_probability_is_calibrated(classes, seed):
    errors = measure_calibration(*drawn(30_000, classes, seed))
    assert errors["ece"] < 0.015
    assert errors["adaptive_ece"] < 0.015
    assert errors["classwise_ece"] < 0.015


@few
@given(classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_certainty_that_is_always_right_is_perfect_and_always_wrong_the_worst(
    classes, seed
):
    labels = np.random.default_rng(seed).integers(0, classes, 200)
    right = measure_calibration(np.eye(classes)[labels], labels)
    assert all(value == pytest.approx(0, abs=1e-9) for value in right.values())
    wrong = measure_calibration(np.eye(classes)[(labels + 1) % classes], labels)
    assert (wrong["ece"], wrong["mce"], wrong["brier"]) == pytest.approx((1, 1, 2))


@few
@given(bins=st.integers(1, 30), seed=st.integers(0, 99))
def test_errors_are_ordered_and_bounded(bins, seed):
    rng = np.random.default_rng(seed)
    confidence = rng.random(300)
    correct = rng.random(300) < 0.5
    overall = abs(confidence.mean() - correct.mean()) - 1e-9
    expected = expected_calibration_error(confidence, correct, bins=bins)
    largest = maximum_calibration_error(confidence, correct, bins=bins)
    assert overall <= expected <= largest + 1e-9
    assert largest <= 1
    assert overall <= adaptive_calibration_error(confidence, correct, bins=bins)
    assert sum(reliability_curve(confidence, correct, bins=bins)["count"]) == 300


def test_proper_scores_are_best_at_the_truth():
    chance, labels = drawn(20_000, 3)
    sharper = chance**2 / (chance**2).sum(1, keepdims=True)
    for score in (brier_score, negative_log_likelihood):
        assert score(chance, labels) < score(sharper, labels)
        assert score(chance, labels) < score((chance + 1 / 3) / 2, labels)


# -- ranking ---------------------------------------------------------------------------
@few
@given(seed=st.integers(0, 99), ties=st.booleans())
def test_area_under_roc_is_the_share_of_pairs_in_the_right_order(seed, ties):
    rng = np.random.default_rng(seed)
    score = rng.integers(0, 4 if ties else 10**6, 40).astype(float)
    positive = rng.random(40) < 0.3
    positive[:2] = [True, False]
    pairs = score[positive][:, None] - score[~positive]
    assert area_under_roc(score, positive) == pytest.approx(
        ((pairs > 0) + 0.5 * (pairs == 0)).mean()
    )
    assert area_under_roc(-score, positive) == pytest.approx(
        1 - area_under_roc(score, positive)
    )


def test_rankings_without_two_sides_are_unknown():
    assert area_under_roc(np.arange(3.0), np.zeros(3, bool)) is None
    assert area_under_roc(np.arange(3.0), np.ones(3, bool)) is None
    assert area_under_roc(np.ones(3), np.array([True, False, False])) == 0.5
    assert rank_correlation(np.arange(2.0), np.arange(2.0)) is None
    assert rank_correlation(np.arange(5.0), np.ones(5)) is None


@few
@given(seed=st.integers(0, 99))
def test_rank_correlation_is_the_correlation_of_ranks(seed):
    first, second = np.random.default_rng(seed).integers(0, 8, (2, 30)).astype(float)
    expected = np.corrcoef(rankdata(first), rankdata(second))[0, 1]
    assert rank_correlation(first, second) == pytest.approx(expected)


@few
@given(seed=st.integers(0, 99))
def test_risk_coverage_is_best_when_doubt_is_the_risk(seed):
    doubt, risk = np.random.default_rng(seed).random((2, 30))
    areas = risk_coverage(doubt, risk)
    assert areas["best"] <= areas["aurc"] + 1e-12
    assert risk_coverage(risk * 3, risk)["aurc"] == pytest.approx(areas["best"])


def test_risk_coverage_by_hand():
    areas = risk_coverage(np.array([1.0, 0.0]), np.array([0.4, 0.2]))
    assert areas == pytest.approx(
        {"aurc": (0.2 + 0.3) / 2, "best": (0.2 + 0.3) / 2, "random": 0.3}
    )
