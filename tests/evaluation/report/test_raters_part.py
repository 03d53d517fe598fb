"""What a page shows of several raters."""

import re

import pytest

from trivox.evaluation.report.page import write_report
from trivox.evaluation.report.parts.raters import raters_chart, raters_part


def dice(mean, low=None, high=None):
    interval = None if low is None else [low, high]
    return {
        "mean": mean,
        "std": 0.1,
        "median": mean,
        "ci95": interval,
        "method": "Student-t",
        "n": 4,
    }


def target(model, others):
    raters = {
        name: {"others": {"dice": dice(each)}, "model": {"dice": dice(model)}}
        for name, each in others.items()
    }
    among = sum(others.values()) / len(others)
    claim = {"mean": model - among, "ci95": [-0.1, 0.1]}
    return {
        "raters": raters,
        "among": {"dice": dice(among, among - 0.05, among + 0.05)},
        "model": {"dice": dice(model)},
        "majority": {"dice": dice(model)},
        "staple": {"dice": dice(model)},
        "difference": {"dice": claim},
    }


def metrics_of(targets):
    return {
        "raters": {
            "files": {},
            "cases": ["a", "b", "c", "d"],
            "convention": {"among": "mean over pairs"},
            "targets": targets,
        }
    }


def text_of(tmp_path, metrics):
    page = tmp_path / "page.html"
    write_report(page, title="raters", parts=[raters_part(metrics)])
    return page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("model", "place"), [(0.6, "below"), (0.75, "within"), (0.9, "above")]
)
def test_a_table_a_target_says_where_the_model_stands(tmp_path, model, place):
    others = {"anna": 0.7, "<b>ben</b>": 0.8}
    targets = {
        "organ": target(model, others),
        "lesion": target(model, others),
        "mean": target(model, others),
    }
    text = text_of(tmp_path, metrics_of(targets))
    assert re.findall("<h3>(.*)</h3>", text) == ["organ", "lesion", "all labels"]
    assert text.count(f"The model is {place} the range of the raters") == 3
    assert "<b>ben" not in text
    assert text.count("&lt;b&gt;ben") == 3
    assert text.count("data:image/png") == 1


def test_a_single_target_named_mean_stays_mean(tmp_path):
    targets = {"mean": target(0.7, {"anna": 0.7, "ben": 0.8})}
    assert "<h3>mean</h3>" in text_of(tmp_path, metrics_of(targets))


def test_what_is_not_known_is_a_dash_and_not_drawn(tmp_path):
    row = target(0.7, {"anna": 0.7, "ben": 0.8})
    for part in (row["among"], row["model"], row["majority"], row["staple"]):
        part["dice"] = dice(None)
    for rater in row["raters"].values():
        rater["others"]["dice"] = dice(None)
        rater["model"]["dice"] = dice(None)
    metrics = metrics_of({"organ": row})
    assert raters_chart(metrics["raters"]) is None
    text = text_of(tmp_path, metrics)
    assert "data:image/png" not in text
    assert "range of the raters" not in text


def test_metrics_without_the_section_have_no_part():
    assert raters_part({}).body == ""
