import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from trivox.errors import DataError
from trivox.evaluation.metrics.claims import (
    claim_of,
    claim_text,
    effect_size,
    false_claim,
    false_claim_of_draws,
    paired_difference,
)

VALUES = st.lists(
    st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=3, max_size=30
)
law = settings(max_examples=60, deadline=None, derandomize=True)


def test_it_is_the_one_sided_paired_t_test_of_scipy():
    rng = np.random.default_rng(0)
    for cases in (3, 5, 20, 200):
        first = rng.beta(8, 2, cases)
        second = first - rng.normal(0.01, 0.05, cases)
        claim = paired_difference(first, second)
        test = stats.ttest_rel(first, second, alternative="greater")
        least = 0.5 ** (cases + 1)
        assert claim["p_false_claim"] == pytest.approx(
            np.clip(test.pvalue, least, 1 - least)
        )
        assert claim["effect_size"] == pytest.approx(test.statistic / np.sqrt(cases))
        both = stats.ttest_rel(first, second).confidence_interval()
        assert claim["ci95"] == pytest.approx([both.low, both.high])


@law
@given(values=VALUES)
def test_exchanging_the_models_gives_the_opposite_claim(values):
    zeros = np.zeros(len(values))
    claim = paired_difference(values, zeros)
    other = paired_difference(zeros, values)
    assert claim["p_false_claim"] + other["p_false_claim"] == pytest.approx(1)
    if claim["effect_size"] is not None:
        assert claim["effect_size"] == pytest.approx(-other["effect_size"])
    low, high = claim["ci95"]
    assert other["ci95"] == pytest.approx([-high, -low])


@law
@given(values=VALUES, shift=st.floats(0.001, 50))
def test_a_better_first_model_never_makes_the_claim_more_doubtful(values, shift):
    differences = np.array(values)
    before = false_claim(differences)
    assert false_claim(differences + shift) <= before + 1e-12


def test_a_claim_is_false_as_often_as_it_says():
    # True differences from a flat prior, differences of cases about them.
    rng = np.random.default_rng(7)
    truth = rng.uniform(-1, 1, 4000)
    data = truth[:, None] + rng.normal(0, 1, (4000, 8))
    said = np.array([false_claim(row) for row in data])
    wrong = truth <= 0
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.7), (0.7, 0.9), (0.9, 1)):
        inside = (said >= low) & (said < high)
        assert inside.sum() > 200
        assert wrong[inside].mean() == pytest.approx(said[inside].mean(), abs=0.05)


@pytest.mark.parametrize("cases", [3, 8])
def test_differences_that_are_all_alike_say_what_their_signs_do(cases):
    alike = claim_of(np.full(cases, 0.1))
    assert alike["p_false_claim"] == 0.5 ** (cases + 1)
    assert alike["effect_size"] is None
    # The same but for rounding: 0.8 - 0.7 and 0.3 - 0.2 are not one number.
    first = np.tile([0.8, 0.3, 0.5], cases)
    rounded = claim_of(first - (first - 0.1))
    assert np.ptp(first - (first - 0.1)) > 0
    assert rounded["effect_size"] is None
    assert claim_of(np.zeros(cases))["p_false_claim"] == 0.5
    assert effect_size(np.array([0.0, 0.0, 0.3])) == pytest.approx(1 / 3**0.5)


def test_two_cases_claim_nothing():
    claim = paired_difference([0.9, 0.8, None], [0.7, 0.7, 0.1])
    assert claim["n"] == 2
    assert claim["mean"] == pytest.approx(0.15)
    assert {claim[name] for name in ("ci95", "p_false_claim", "effect_size")} == {None}
    assert "too few" in claim_text(claim)


def test_only_cases_with_a_value_in_both_count():
    nan = float("nan")
    claim = paired_difference(
        [0.9, 0.8, 0.7, None, nan, 1.0], [0.8, 0.75, 0.5, 1.0, 1.0, nan]
    )
    assert claim == paired_difference([0.9, 0.8, 0.7], [0.8, 0.75, 0.5])
    text = claim_text(claim)
    assert "P(false claim) 0." in text
    assert "d_z +" in text
    certain = paired_difference(np.arange(40.0), np.arange(40.0) - 1)
    assert "P(false claim) below 0.0001" in claim_text(certain)
    claim |= {"mean": 0.25, "ci95": [-0.125, 1], "p_false_claim": 0.0316}
    shown = "+0.2500 [-0.1250, +1.0000], P(false claim) 0.0316, d_z +1.50"
    assert claim_text(claim | {"effect_size": 1.5}) == shown
    unknown = {"p_false_claim": None, "effect_size": None}
    assert claim_text(claim | unknown, 1) == "+0.2 [-0.1, +1.0], P(false claim) -"
    with pytest.raises(DataError, match="same cases"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="at least one case"):
        paired_difference([None, nan], [1.0, 1.0])


def test_resampled_differences_count_ties_half():
    draws = np.array([-1.0, 0.0, 1.0, 1.0, np.nan])
    assert false_claim_of_draws(draws) == pytest.approx((1.5 + 0.5) / 5)
    assert false_claim_of_draws(-draws) == pytest.approx(1 - (1.5 + 0.5) / 5)
    assert false_claim_of_draws(np.array([np.nan])) is None
    assert false_claim_of_draws(np.ones(1999)) == 0.00025
