"""What one part of metrics.json says of another is whole, or refused with its place."""

import json
import tarfile
from pathlib import Path

import pytest

from trivox.errors import BundleError
from trivox.evaluation.folders.labels import read_metrics

ARCHIVES = Path(__file__).parents[2] / "golden" / "0.1.0"
DELETED = object()


@pytest.fixture(scope="module")
def measured():
    """A metrics.json with classes and calibration."""
    with tarfile.open(ARCHIVES / "multitask.tar.xz") as archive:
        return (
            archive.extractfile("multitask/run/validation/metrics.json").read().decode()
        )


def changed(text, path, value):
    """The content with another value at a path."""
    content = json.loads(text)
    part = content
    for name in path[:-1]:
        part = part[name]
    if value is DELETED:
        del part[path[-1]]
    else:
        part[path[-1]] = value
    return content


def first(content, *path):
    """The first name in a part."""
    for name in path:
        content = content[name]
    return next(iter(content))


def test_what_was_measured_agrees(measured, tmp_path):
    file = tmp_path / "metrics.json"
    file.write_text(measured, encoding="utf-8")
    assert read_metrics(file)["classification"]["cases"]


@pytest.mark.parametrize("part", ["support", "recall", "precision"])
@pytest.mark.parametrize("table", ["summary", "rows"])
def test_scores_are_about_all_classes(measured, tmp_path, part, table):
    content = json.loads(measured)
    section = content["classification"]
    summary = section["summary"] if table == "summary" else section[table][1]["summary"]
    del summary[part][section["classes"][0]]
    require_refusal(tmp_path, content, f"classification: {table}.*{part}")


@pytest.mark.parametrize(
    "confusion", [[], [[1]], [[1, 2], [3, 4], [5, 6]], [[1, 2], []]]
)
def test_confusion_is_of_all_classes(measured, tmp_path, confusion):
    path = ("classification", "summary", "confusion")
    require_refusal(tmp_path, changed(measured, path, confusion), "summary: confusion")


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("class", "another"),
        ("answer", "another"),
        ("probabilities", {}),
        ("probabilities", {"another": 1.0}),
    ],
)
def test_cases_are_of_the_classes(measured, tmp_path, part, value):
    case = first(json.loads(measured), "classification", "cases")
    path = ("classification", "cases", case, part)
    require_refusal(tmp_path, changed(measured, path, value), f"{case}: {part}")


@pytest.mark.parametrize("value", [None, "0.5", -0.1, 1.5, float("nan"), True])
def test_probabilities_are_shares(measured, tmp_path, value):
    content = json.loads(measured)
    case = content["classification"]["cases"][first(content, "classification", "cases")]
    case["probabilities"][first(case, "probabilities")] = value
    require_refusal(tmp_path, content, "probabilities")


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), 1e300, 2**64])
def test_numbers_beyond_all_measure_are_refused(measured, tmp_path, value):
    content = json.loads(measured)
    row = content["cases"][first(content, "cases")]
    row[next(iter(row))]["dice"] = value
    require_refusal(tmp_path, content, "dice")


def test_classes_have_names_of_their_own(measured, tmp_path):
    content = json.loads(measured)
    classes = content["classification"]["classes"]
    path = ("classification", "classes")
    doubled = changed(measured, path, [classes[0], *classes])
    require_refusal(tmp_path, doubled, "named twice")


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        ("count", [1], "confidence: has"),
        ("count", [-1] * 15, "equal to 0"),
        ("accuracy", [], "accuracy: has 0 bins"),
        ("confidence", [None] * 15, "confidence: is missing"),
    ],
)
def test_curves_have_a_value_for_each_bin(measured, tmp_path, part, value, complaint):
    path = ("calibration", "reliability", "before", part)
    content = changed(measured, path, value)
    require_refusal(tmp_path, content, f"calibration.reliability.*{complaint}")


@pytest.mark.parametrize("part", ["threshold", "flagged", "poor_dice"])
def test_the_rule_of_abstention_is_whole(measured, tmp_path, part):
    rule = {"threshold": 0.3, "poor_dice": 0.5, "cases": 5, "poor": 1}
    rule |= {"flagged": 1, "flagged_poor": 1}
    whole = changed(measured, ("calibration", "abstention"), rule)
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(whole), encoding="utf-8")
    assert read_metrics(file)["calibration"]["abstention"]["poor"] == 1
    del rule[part]
    require_refusal(tmp_path, whole, f"abstention.{part}")


def require_refusal(folder, content, place):
    file = folder / "metrics.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(BundleError, match=place):
        read_metrics(file)


@pytest.mark.parametrize(("part", "value"), [("covered", 8), ("tested", 6)])
def test_no_more_intervals_hold_than_were_tested(measured, tmp_path, part, value):
    row = {"low_factor": 0.8, "high_factor": 1.2, "cases": 9, "covered": 7}
    row |= {"tested": 7, "coverage": 1.0, "ci95": [0.6, 1.0], "method": "Wilson"}
    section = {"level": 0.9, "offset_ml": 0.1, "convention": {}, "targets": {"a": row}}
    whole = json.loads(measured) | {"volume_intervals": section}
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(whole), encoding="utf-8")
    assert read_metrics(file)["volume_intervals"]["targets"]["a"]["covered"] == 7
    row[part] = value
    require_refusal(tmp_path, whole, "volume_intervals.targets.a: covered")


@pytest.mark.parametrize(
    ("part", "value"),
    [("flagged", 6), ("poor", 6), ("flagged_poor", 3)],
)
def test_what_is_flagged_is_part_of_all(measured, tmp_path, part, value):
    rule = {"threshold": 0.3, "poor_dice": 0.5, "cases": 5, "poor": 2}
    rule |= {"flagged": 2, "flagged_poor": 1, part: value}
    whole = changed(measured, ("calibration", "abstention"), rule)
    require_refusal(tmp_path, whole, "abstention.*no part")


MISSED = {
    "max_missed": 0.1,
    "threshold": 0.4,
    "cases": 12,
    "tested": 12,
    "missed": 0.05,
    "ci95": [0.01, 0.2],
    "method": "Student-t of the logit",
}


@pytest.mark.parametrize(
    ("part", "value", "complaint"),
    [
        ("max_missed", 1.5, "less than or equal to 1"),
        ("threshold", -0.1, "greater than or equal to 0"),
        ("missed", 2, "less than or equal to 1"),
        ("ci95", [0.2, 0.01], "ends before it begins"),
        ("ci95", [0.2, 7.0], "less than or equal to 1"),
        ("cases", -1, "greater than or equal to 0"),
        ("tested", 13, "tested: is no part of cases"),
    ],
)
@pytest.mark.parametrize("what", ["missed_voxels", "missed_lesions"])
def test_shares_that_are_missed_are_shares(
    measured, tmp_path, what, part, value, complaint
):
    row = dict(MISSED)
    whole = json.loads(measured) | {what: {"convention": {}, "targets": {"a": [row]}}}
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(whole), encoding="utf-8")
    assert read_metrics(file)[what]["targets"]["a"][0]["missed"] == 0.05
    row[part] = value
    require_refusal(tmp_path, whole, f"{what}.targets.a.*{complaint}")


def test_an_interval_begins_before_it_ends(measured, tmp_path):
    content = json.loads(measured)
    label = first(content, "summary")
    content["summary"][label]["dice"]["ci95"] = [0.9, 0.1]
    require_refusal(tmp_path, content, "ends before it begins")
