"""What a page shows of lesions that were found."""

import numpy as np
import pytest

from trivox.evaluation.metrics.detection.scores import (
    CONVENTION,
    Pooled,
    froc_curve,
    measure_detections,
)
from trivox.evaluation.report.page import write_report
from trivox.evaluation.report.parts.detections import (
    detection_curves,
    detection_part,
    precision_and_recall,
)


def case(hits, false, lesions):
    likelihood = max([*hits, *false], default=0.0)
    return {
        "likelihood": likelihood,
        "lesions": lesions,
        "hits": list(hits),
        "false": list(false),
        "second": [],
    }


def drawn_cases(seed):
    """Cases with ties among likelihoods, and with lesions that nothing found."""
    rng = np.random.default_rng(seed)
    cases = {}
    for number in range(12):
        lesions = int(rng.integers(0, 4))
        hits = rng.integers(1, 9, rng.integers(0, lesions + 1)) / 8
        false = rng.integers(1, 9, rng.integers(0, 3)) / 8
        cases[f"case{number}"] = case(hits.tolist(), false.tolist(), lesions)
    return cases


def section_of(cases):
    return {
        "convention": CONVENTION,
        "lesion": ["tumour"],
        "cases": cases,
        "summary": measure_detections(cases, resamples=50),
        "curve": froc_curve(Pooled.of(cases)),
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_area_below_precision_over_recall_is_the_average_precision(seed):
    cases = drawn_cases(seed)
    recall, precision = precision_and_recall(Pooled.of(cases))
    area = (precision * np.diff(recall, prepend=0.0)).sum()
    summary = section_of(cases)["summary"]
    assert area == pytest.approx(summary["ap"]["value"])
    assert recall[-1] <= 1


def test_a_page_shows_scores_and_curves(tmp_path):
    page = tmp_path / "page.html"
    metrics = {"detection": section_of(drawn_cases(0))}
    write_report(page, title="lesions", parts=[detection_part(metrics)])
    text = page.read_text(encoding="utf-8")
    assert "Lesions found at 0.125 false a case" in text
    assert text.count("data:image/png") == 1


@pytest.mark.parametrize(
    "cases",
    [
        {"a": case([], [], 2)},  # no candidates
        {"a": case([], [0.5], 0), "b": case([], [], 0)},  # no lesions
    ],
)
def test_where_there_is_no_curve_the_scores_stand_alone(tmp_path, cases):
    section = section_of(cases)
    assert detection_curves(section) is None
    page = tmp_path / "page.html"
    write_report(page, title="x", parts=[detection_part({"detection": section})])
    assert "data:image/png" not in page.read_text(encoding="utf-8")


def test_lesions_that_nothing_hits_have_a_curve_all_the_same():
    assert detection_curves(section_of({"a": case([], [0.5], 2)})) is not None


def test_metrics_without_the_section_have_no_part():
    assert detection_part({}).body == ""
