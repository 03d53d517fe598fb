"""Intervals of volumes for cases that are unlike those of validation: weights, bands,
and where weighing is given up.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trivox.inference.doubt.conformal import LEVEL, VolumeIntervals, band_of
from trivox.inference.doubt.likeness import Look
from trivox.inference.doubt.shift import (
    FEWEST_EFFECTIVE,
    FEWEST_NEW,
    VolumeCases,
    features_of,
    learn_cases,
    likelihood_ratios,
    weigh_cohort,
    weighted_band,
)

law = settings(max_examples=60, deadline=None, derandomize=True)
RATIOS = st.lists(st.floats(-3, 3), max_size=60).map(np.array)


@law
@given(ratios=RATIOS, weight=st.sampled_from([0.01, 1.0, 250.0]))
def test_equal_weights_are_none(ratios, weight):
    weights = np.full(len(ratios), weight)
    assert weighted_band(ratios, weights, weight) == band_of(ratios)


@law
@given(ratios=RATIOS, seed=st.integers(0, 99))
def test_a_case_of_weight_two_is_two_cases(ratios, seed):
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 4, len(ratios))
    band = weighted_band(ratios, times.astype(float), 1.0)
    repeated = band_of(np.repeat(ratios, times))
    assert (band is None) == (repeated is None)
    if band is not None:
        assert (band.low, band.high) == (repeated.low, repeated.high)


def test_a_new_case_that_weighs_too_much_has_no_interval():
    ratios = np.linspace(-1, 1, 40)
    weights = np.ones(40)
    assert weighted_band(ratios, weights, 2.0).high < 1.01
    assert weighted_band(ratios, weights, 3.0) == weighted_band(ratios, weights, 4.0)
    assert weighted_band(ratios, weights, 5.0) is None


def test_shifted_cases_lie_in_weighted_intervals_as_often_as_they_say():
    """Errors grow with x; new cases have large ones. Known: the true likelihood ratio."""
    rng = np.random.default_rng(0)
    held = {"plain": [], "weighted": []}
    for _ in range(1500):
        x = rng.uniform(0, 1, 60)
        ratios = rng.normal(0, 0.05 + x)
        new = rng.beta(3, 1)  # density 3 x^2
        ratio = rng.normal(0, 0.05 + new)
        bands = {
            "plain": band_of(ratios),
            "weighted": weighted_band(ratios, 3 * x**2, 3 * new**2),
        }
        for how, band in bands.items():
            held[how].append(band is None or band.low <= ratio <= band.high)
    spread = 3 * (0.09 / 1500) ** 0.5
    assert np.mean(held["weighted"]) >= LEVEL - spread
    assert np.mean(held["plain"]) < LEVEL - 2 * spread


def test_ratios_are_those_of_the_densities():
    rng = np.random.default_rng(1)
    known = rng.normal(0, 1, (300, 4))
    new = rng.normal(0, 1, (200, 4)) + np.eye(4)[0]
    weights = likelihood_ratios(known, new)
    true = known[:, 0] - 0.5  # logarithm of the ratio of the two normal densities
    assert np.corrcoef(np.log(weights.known), true)[0, 1] > 0.9
    assert weights.known.mean() == pytest.approx(1, abs=0.25)
    assert 30 < weights.effective < 200
    assert np.median(weights.new) > 1 > np.median(weights.known)


def test_what_cannot_be_told_apart_is_not_weighed():
    rng = np.random.default_rng(2)
    for shape in [(60, 30), (200, 6)]:
        weights = likelihood_ratios(
            rng.normal(size=shape), rng.normal(size=(50, shape[1]))
        )
        assert weights.effective > 0.9 * shape[0]
    alike = likelihood_ratios(np.ones((30, 5)), np.ones((40, 5)))
    assert np.array_equal(alike.known, np.ones(30))
    assert np.array_equal(alike.new, np.ones(40))


def knowing(count, seed=0):
    rng = np.random.default_rng(seed)
    looks = rng.normal(size=(count, 5))
    ratios = rng.normal(0, np.exp(0.5 * looks[:, 0]) / 5)
    return VolumeCases(
        looks=tuple(map(tuple, looks.tolist())), ratios={"a": tuple(ratios.tolist())}
    ), VolumeIntervals(offset_ml=0.01, targets={"a": band_of(ratios)})


def cohort_of(count, centre, cases=100):
    known, intervals = knowing(cases)
    looks = np.random.default_rng(3).normal(size=(count, 5)) + centre * np.eye(5)[0]
    named = {f"case{number}": look for number, look in enumerate(looks)}
    return weigh_cohort(known, intervals, named), intervals


def test_a_cohort_of_larger_errors_has_wider_intervals():
    cohort, intervals = cohort_of(60, 1.0)
    assert FEWEST_EFFECTIVE < cohort.effective < 90
    plain = np.diff(intervals.interval("a", 10.0))
    bounds = [case.interval("a", 10.0) for case in cohort.cases.values()]
    known = [np.diff(each) for each in bounds if each is not None]
    assert np.median(known) > 1.15 * plain
    assert cohort.settings["new_cases"] == 60
    assert cohort.settings["weighted_cases"] == len(known) == 59
    assert f"count as {cohort.effective:.1f} " in cohort.remark
    assert "the 60 new ones, of which 1 are too unlike" in cohort.remark
    same, _ = cohort_of(60, 1.0)
    other, _ = cohort_of(60, 1.1)
    assert same.settings == cohort.settings != other.settings


@pytest.mark.parametrize(
    ("new", "cases", "centre", "why_not"),
    [
        (FEWEST_NEW - 1, 100, 1.0, "19 new cases, fewer than 20"),
        (60, 20, 1.5, "are left to learn from, fewer than 19"),
        (60, 100, 12.0, "hardly any validation case looks like this one"),
    ],
)
def test_weighing_is_given_up_where_it_is_useless(new, cases, centre, why_not):
    cohort, _ = cohort_of(new, centre, cases)
    assert len(cohort.cases) == new
    assert cohort.settings["weighted_cases"] == 0
    for case in cohort.cases.values():
        assert case.interval("a", 10.0) is None
        assert why_not in case.why_not


def look(value):
    features = np.full((2, 3), value)
    features[1] = np.nan
    return Look((1.0, 2.0, 4.0), (10.0, 20.0, 40.0), features)


def test_a_bundle_holds_the_looks_of_the_cases_that_ratios_are_of():
    names = [f"case{number}" for number in range(20)]
    looks = {name: look(number + 1 / 3) for number, name in enumerate([*names, "more"])}
    ratios = {"a": {name: float(number) for number, name in enumerate(reversed(names))}}
    cases = learn_cases(looks, ratios)
    assert cases.ratios["a"] == tuple(range(20))
    assert cases.looks[0] == pytest.approx(features_of(looks["case19"]))
    assert cases.looks[0][:3] == (19.33,) * 3
    assert cases.looks[0][3:6] == (0.0,) * 3  # absent
    assert cases.looks[0][6:9] == pytest.approx(np.log([1, 2, 4]), rel=1e-3, abs=1e-9)
    assert VolumeCases.model_validate_json(cases.model_dump_json()) == cases
    few = {"a": dict.fromkeys(names[:18], 0.0)}
    assert learn_cases(looks, few) is None
    assert learn_cases(looks, {}) is None


def test_cases_of_a_file_belong_together():
    with pytest.raises(ValidationError, match="2 ratios of a for 1 looks"):
        VolumeCases(looks=((1.0,),), ratios={"a": (0.1, 0.2)})
    with pytest.raises(ValidationError, match="different lengths"):
        VolumeCases(looks=((1.0,), (1.0, 2.0)), ratios={"a": (0.1, 0.2)})
    with pytest.raises(ValidationError):
        VolumeCases(looks=((float("nan"),),), ratios={"a": (0.1,)})
