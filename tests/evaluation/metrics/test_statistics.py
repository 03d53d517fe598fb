import numpy as np
import pytest

from trivox.evaluation.metrics.intervals import (
    ANYWHERE,
    HALL,
    LOG_T,
    LOGIT_T,
    POSITIVE,
    SHARE,
    STUDENT_T,
    Support,
)
from trivox.evaluation.metrics.statistics import methods_of, summarise, support_of


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
    assert summarise([0.5] * 20)["ci95"] is None


def test_summary_is_what_numpy_says():
    values = [0.1, 0.4, 0.8, 0.85]
    result = summarise(values)
    assert result["mean"] == pytest.approx(np.mean(values))
    assert result["std"] == pytest.approx(np.std(values, ddof=1))
    assert result["median"] == pytest.approx(np.median(values))
    assert result["ci95"][0] < result["mean"] < result["ci95"][1]


@pytest.mark.parametrize(
    ("metric", "support"),
    [
        ("dice", SHARE),
        ("instance_nsd", SHARE),
        ("instance_hd95_mm", POSITIVE),
        ("mae_body_hu", POSITIVE),
        ("lesions_missed", POSITIVE),
        ("volume_error_percent", Support(-100)),
        ("volume_error_ml", ANYWHERE),
        ("psnr_db", ANYWHERE),
        ("anything else", ANYWHERE),
    ],
)
def test_a_name_says_where_values_lie(metric, support):
    assert support_of(metric) == support


@pytest.mark.parametrize(
    ("metric", "cases", "method"),
    [
        ("dice", 7, LOGIT_T),
        ("dice", 8, HALL),
        ("hd95_mm", 3, STUDENT_T),
        ("hd95_mm", 4, LOG_T),
        ("hd95_mm", 7, LOG_T),
        ("hd95_mm", 8, HALL),
        ("psnr_db", 7, STUDENT_T),
        ("psnr_db", 8, STUDENT_T),
    ],
)
def test_the_method_goes_by_metric_and_cases_and_stands_beside(metric, cases, method):
    values = np.random.default_rng(0).uniform(0.5, 1, cases)
    statistic = summarise(values, metric)
    assert statistic["method"] == method
    assert methods_of([statistic, statistic]) == [method]
    # Values that cannot be of the metric are taken as they are.
    assert summarise(values - 5, metric)["method"] == STUDENT_T


def test_intervals_of_old_files_are_named_too():
    old = {"mean": 0.5, "ci95": [0.4, 0.6]}
    assert methods_of([old, {"mean": 0.5, "ci95": None}]) == ["percentile bootstrap"]
