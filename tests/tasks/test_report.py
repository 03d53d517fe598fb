import json
import shutil

import pytest

import trivox
from trivox.errors import BundleError
from trivox.files import read_json, write_json
from trivox.tasks.console import Quiet
from trivox.tasks.labels.segmentation import SegmentationTask
from trivox.tasks.report import report_run
from trivox.tasks.task import Pictures

GAIN = {"organ": {"on_the_same_cases": 0.0123, "cross_fitted": 0.0045}}
RULES = (
    {"largest_foreground": True},
    {"largest_of": [1]},
    {"remove_small": {"organ": 50.0}},
    {"replace_small": {"a": 9.0}},
)


@pytest.fixture
def run(tiny_run, tmp_path, monkeypatch):
    """A finished run of which no pictures are drawn."""
    monkeypatch.setattr(
        "trivox.tasks.labels.segmentation.picture_cases",
        lambda *args, **kwargs: Pictures(),
    )
    return shutil.copytree(
        tiny_run,
        tmp_path / "run",
        ignore=shutil.ignore_patterns("prepared", "checkpoints", "bundle"),
    )


class Lines(Quiet):
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, line):
        self.lines.append(line)


@pytest.mark.parametrize("content", ["", "{", '{"measured": {"training": 5}}', None])
def test_a_damaged_record_of_costs_is_said_and_stops_no_report(run, content):
    if content is None:
        (run / "cost.json").unlink()
    else:
        (run / "cost.json").write_text(content)
    console = Lines()
    page = report_run(SegmentationTask(), run, console=console)
    said = [line for line in console.lines if "cost.json" in line]
    assert len(said) == (content is not None)
    assert ("cost.json" in page.read_text(encoding="utf-8")) == (content is not None)


@pytest.mark.parametrize("rule", [{}, *RULES])
def test_rules_chosen_on_the_cases_they_are_measured_on_are_a_warning(run, rule):
    file = run / "validation" / "metrics.json"
    metrics = json.loads(file.read_text())
    metrics["postprocessing"] = {
        "largest_foreground": False,
        "largest_of": [],
        "trials": ["x"],
        "gain": GAIN,
        **rule,
    }
    file.write_text(json.dumps(metrics))
    text = report_run(SegmentationTask(), run, console=Quiet()).read_text(
        encoding="utf-8"
    )
    assert ("its gain here is optimistic" in text) == bool(rule)
    assert ("organ 0.0123 here, 0.0045 on cases not chosen on" in text) == bool(rule)


def test_metrics_that_contradict_themselves_are_one_line(tiny_run, tmp_path):
    metrics = read_json(tiny_run / "validation" / "metrics.json")
    for curve in metrics["calibration"]["reliability"].values():
        curve["accuracy"].clear()
    file = tmp_path / "metrics.json"
    write_json(file, metrics)
    with pytest.raises(
        BundleError, match=r"reliability\..*accuracy: has 0 bins"
    ) as refusal:
        trivox.report(file, tmp_path / "page.html")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "page.html").exists()
