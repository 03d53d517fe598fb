import numpy as np
import pytest

from trivox.evaluation.metrics.statistics import (
    bootstrap_interval,
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
