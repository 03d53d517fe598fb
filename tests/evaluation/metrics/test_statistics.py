import numpy as np
import pytest

from trivox.errors import DataError
from trivox.evaluation.metrics.statistics import (
    bootstrap_interval,
    paired_difference,
    summarise,
)


def test_missing_values_do_not_count():
    assert summarise([0.5, None, float("nan"), 0.7]) == {
        **summarise([0.5, 0.7]),
        "n": 2,
    }
    assert summarise([None]) == {
        "mean": None,
        "std": None,
        "median": None,
        "ci95": None,
        "n": 0,
    }
    assert summarise([0.5])["ci95"] is None


def test_summary_is_what_numpy_says():
    values = [0.1, 0.4, 0.8, 0.85]
    result = summarise(values)
    assert result["mean"] == pytest.approx(np.mean(values))
    assert result["std"] == pytest.approx(np.std(values, ddof=1))
    assert result["median"] == pytest.approx(np.median(values))
    assert result["ci95"][0] < result["mean"] < result["ci95"][1]


def test_interval_agrees_with_theory_and_is_reproducible():
    values = np.random.default_rng(0).normal(5, 2, 200)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / np.sqrt(200)
    assert (low, high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.05
    )
    assert bootstrap_interval(values) == (low, high)
    assert bootstrap_interval(values, level=0.5)[0] > low


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [
        bootstrap_interval(rng.beta(8, 2, 30), seed=i, resamples=500)
        for i in range(200)
    ]
    assert 0.89 <= np.mean([low <= 0.8 <= high for low, high in intervals]) <= 0.99


def test_pairing_finds_a_small_constant_gain():
    rng = np.random.default_rng(2)
    base = rng.uniform(0.3, 0.9, 40)
    better = base + 0.02 + rng.normal(0, 0.01, 40)
    result = paired_difference([*better, None], [*base, 0.5])
    assert result["n"] == 40
    assert 0 < result["ci95"][0] < result["mean"] < result["ci95"][1]
    assert result["p_value"] == 1 / 2000
    assert paired_difference(base, base)["p_value"] == 1
    assert paired_difference(base, better)["mean"] == pytest.approx(-result["mean"])


def test_unequal_cases_are_refused():
    with pytest.raises(DataError, match="same cases"):
        paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(DataError, match="at least one case"):
        paired_difference([None], [1.0])
