"""Folders with detection maps: what is measured, what is refused, what is said."""

import json
from functools import partial

import numpy as np
import pytest

import trivox
from impossible_bundles import altered
from trivox.errors import BundleError, DataError
from trivox.evaluation.folders.labels import evaluate_folders, read_metrics
from trivox.files import write_json
from trivox.volumes.formats import write_volume
from trivox.volumes.geometry import Orientation, reorient
from trivox.volumes.volume import Volume, affine_from_spacing

GRID = affine_from_spacing((2.0, 1.0, 1.5))
measure_folders = partial(evaluate_folders, task="segmentation")


def lesion(y, value=2, dtype=np.uint8):
    """Organ 1 everywhere inside, a lesion of 64 voxels at `y`."""
    array = np.zeros((8, 24, 12), dtype)
    if dtype == np.uint8:
        array[1:7, 1:23, 1:11] = 1
    array[2:6, y : y + 4, 2:6] = value
    return Volume(array[None], GRID)


def candidates(*pairs):
    array = np.zeros((8, 24, 12), np.float32)
    for y, likelihood in pairs:
        array[2:6, y : y + 4, 2:6] = likelihood
    return Volume(array[None], GRID)


MAPS = {
    "a": candidates((2, 0.75), (12, 0.25)),
    "b": candidates((12, 0.5)),
    "c": candidates((12, 0.125)),
}
REFERENCES = {"a": lesion(2), "b": lesion(2), "c": lesion(2, value=1)}


@pytest.fixture
def folders(tmp_path):
    """Predictions of three cases, c without a lesion, as their model wrote them down."""
    predictions = tmp_path / "predictions"
    references = tmp_path / "references"
    cases = {}
    for case, reference in REFERENCES.items():
        write_volume(references / f"{case}.nii.gz", reference)
        write_volume(predictions / f"{case}.nii.gz", lesion(2))
        write_volume(predictions / f"{case}_detection.nii.gz", MAPS[case])
        likelihood = float(MAPS[case].array.max())
        cases[case] = {"detection": {"likelihood": likelihood, "lesion": ["tumour"]}}
    content = {
        "format_version": 1,
        "model": "m",
        "labels": {"organ": 1, "tumour": 2},
        "files": {},
        "cases": cases,
    }
    write_json(predictions / "predictions.json", content)
    return predictions, references


def test_lesions_and_cases_are_measured_beside_the_labels(folders):
    metrics = measure_folders(*folders)
    section = metrics["detection"]
    assert section["lesion"] == ["tumour"]
    assert metrics["warnings"] == []
    assert section["cases"]["a"] == {
        "likelihood": 0.75,
        "lesions": 1,
        "hits": [0.75],
        "false": [0.25],
        "second": [],
    }
    summary = section["summary"]
    assert (summary["cases"], summary["with_lesion"], summary["lesions"]) == (3, 2, 2)
    assert summary["ap"]["value"] == 0.5  # one of two lesions, before all false ones
    assert summary["auroc"]["value"] == 1
    assert summary["sensitivity"]["0.25"]["value"] == 0.5
    assert section["curve"]["likelihood"] == [0.75, 0.5, 0.25, 0.125]
    assert set(metrics["cases"]) == set(MAPS)  # maps are no cases of their own


def test_without_maps_there_is_no_section(folders):
    predictions, references = folders
    for case in MAPS:
        (predictions / f"{case}_detection.nii.gz").unlink()
    metrics = measure_folders(predictions, references)
    assert "detection" not in metrics
    assert metrics["warnings"] == [
        "lesions not measured, there is no detection map: a, b, c"
    ]
    (predictions / "predictions.json").unlink()  # nobody says that there should be one
    assert measure_folders(predictions, references)["warnings"] == []


def say(predictions, says):
    """Let the records of cases call something lesion."""
    file = predictions / "predictions.json"
    content = json.loads(file.read_text())
    for case, lesion in says.items():
        content["cases"][case]["detection"]["lesion"] = lesion
    file.write_text(json.dumps(content))


@pytest.mark.parametrize("lesion", [5, None, "tumour", [1], {"tumour": 1}, [["x"]], []])
def test_records_that_name_no_labels_say_nothing(folders, lesion):
    predictions, references = folders
    say(predictions, {"a": lesion})  # b and c name it
    expected = measure_folders(predictions, references)["detection"]
    assert expected["lesion"] == ["tumour"]
    assert expected["summary"]["lesions"] == 2
    say(predictions, dict.fromkeys(MAPS, lesion))
    section = measure_folders(predictions, references)["detection"]
    assert section["lesion"] == ["label_1", "label_2"]


@pytest.mark.parametrize("lesion", [["cyst"], ["tumour", "cyst"]])
def test_lesions_that_the_references_do_not_have_are_not_measured(folders, lesion):
    say(folders[0], dict.fromkeys(MAPS, lesion))
    metrics = measure_folders(*folders)
    assert "detection" not in metrics
    (warning,) = metrics["warnings"]
    assert warning.startswith("lesions of a, b, c: not measured: the records call cyst")


def test_cases_that_mean_other_lesions_are_left_out(folders):
    say(folders[0], {"b": ["organ", "tumour"]})
    metrics = measure_folders(*folders)
    assert set(metrics["detection"]["cases"]) == {"a", "c"}
    assert metrics["detection"]["lesion"] == ["tumour"]
    (warning,) = metrics["warnings"]
    assert "lesions of b: not measured: the record calls organ, tumour" in warning


def test_maps_of_others_are_measured_by_the_labels_of_the_references(folders):
    predictions, references = folders
    (predictions / "predictions.json").unlink()
    section = measure_folders(predictions, references)["detection"]
    # no name says what a lesion is: all that is marked
    assert section["lesion"] == ["label_1", "label_2"]
    assert section["summary"]["lesions"] == 3


def test_a_map_turned_like_the_reference_is_the_same(folders):
    predictions, references = folders
    expected = measure_folders(predictions, references)["detection"]
    for case, volume in REFERENCES.items():
        turned = reorient(volume, Orientation((2, 0, 1), (True, False, True)))
        write_volume(references / f"{case}.nii.gz", turned)
    assert measure_folders(predictions, references)["detection"] == expected


def test_a_lacking_map_is_said(folders):
    (folders[0] / "b_detection.nii.gz").unlink()
    metrics = measure_folders(*folders)
    assert metrics["warnings"] == ["lesions not measured, there is no detection map: b"]
    assert set(metrics["detection"]["cases"]) == {"a", "c"}


def spoil(folder, case, volume):
    write_volume(folder / f"{case}_detection.nii.gz", volume)


def ramp():
    array = np.zeros((1, 8, 24, 12), np.float32)
    array[:, 2:6, 2:6] = np.linspace(0.1, 0.9, 12)
    return Volume(array, GRID)


SPOILED = {
    "other voxels": Volume(
        np.zeros((1, 8, 24, 12), np.float32), affine_from_spacing((2.5, 1.0, 1.5))
    ),
    "have different likelihoods": ramp(),
    "from 0 to 1, this one": candidates((2, 3.0)),
    "one channel": Volume(np.zeros((2, 8, 24, 12), np.float32), GRID),
}


@pytest.mark.parametrize("why", SPOILED)
def test_a_map_that_is_none_is_not_measured_and_said(folders, why):
    spoil(folders[0], "b", SPOILED[why])
    metrics = measure_folders(*folders)
    assert set(metrics["detection"]["cases"]) == {"a", "c"}
    (warning,) = metrics["warnings"]
    assert warning.startswith("lesions of b: not measured: ")
    assert why in warning


def test_if_no_map_can_be_measured_the_labels_are(folders):
    expected = measure_folders(*folders)
    for case in MAPS:
        spoil(folders[0], case, ramp())
    metrics = measure_folders(*folders)
    assert "detection" not in metrics
    assert metrics["cases"] == expected["cases"]
    assert len(metrics["warnings"]) == 3


def test_a_map_that_contradicts_its_record_is_said(folders):
    spoil(folders[0], "b", candidates((2, 0.875)))
    metrics = measure_folders(*folders)
    assert metrics["detection"]["cases"]["b"]["likelihood"] == 0.875
    (warning,) = metrics["warnings"]
    assert "b: the record says a likelihood of 0.5" in warning


def test_headline_and_report_show_the_scores(folders, tmp_path):
    evaluation = trivox.evaluate(*folders, tmp_path / "metrics.json")
    assert "lesions: AP 0.500" in evaluation.headline
    assert "AUROC of cases 1.000" in evaluation.headline
    report = trivox.report(tmp_path / "metrics.json").read_text()
    assert "Lesions found at 0.25 false a case" in report
    assert "2 lesions (tumour) in 2 of 3 cases" in report


def better(section):
    section["summary"]["ap"]["value"] = 0.9


def hidden_alarm(section):
    section["cases"]["a"]["false"] = []


@pytest.mark.parametrize("change", [better, hidden_alarm])
def test_edited_scores_are_not_verified(folders, tmp_path, change):
    file = tmp_path / "metrics.json"
    trivox.evaluate(*folders, file)
    assert not trivox.verify(file).disagreements
    content = json.loads(file.read_text())
    change(content["detection"])
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="detection"):
        trivox.verify(file)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A metrics.json that is read, as text."""
    folder = tmp_path_factory.mktemp("measured")
    for case, reference in REFERENCES.items():
        write_volume(folder / "references" / f"{case}.nii.gz", reference)
        write_volume(folder / "predictions" / f"{case}.nii.gz", lesion(2))
        write_volume(folder / "predictions" / f"{case}_detection.nii.gz", MAPS[case])
    file = folder / "metrics.json"
    trivox.evaluate(folder / "predictions", folder / "references", file)
    assert read_metrics(file)["detection"]["cases"]
    return file.read_text()


IMPOSSIBLE = [
    (("cases", "a", "likelihood"), 0.8, "not the largest of its candidates"),
    (("cases", "a", "lesions"), -1, "greater than or equal to 0"),
    (("cases", "b", "lesions"), 9, "summary: cases or lesions"),
    (("summary", "lesions"), 99, "summary: cases or lesions"),
    (("summary", "with_lesion"), 99, "summary: cases or lesions"),
    (("summary", "ap", "value"), 1.5, "less than or equal to 1"),
    (("summary", "auroc", "value"), -0.1, "greater than or equal to 0"),
    (("summary", "ap", "ci95"), [0.9, 0.1], "ends before it begins"),
    (("summary", "ap", "ci95"), [0.9, 1.1], "less than or equal to 1"),
    (("summary", "sensitivity", "0.5", "value"), 2, "less than or equal to 1"),
    (("summary", "sensitivity"), {"often": {"value": 1, "ci95": None}}, "often"),
    (("curve", "sensitivity"), [0.5], "curve: has not as many values"),
]


@pytest.mark.parametrize(("place", "value", "complaint"), IMPOSSIBLE)
def test_a_section_of_impossible_numbers_is_no_metrics_file(
    measured, tmp_path, place, value, complaint
):
    content = altered(json.loads(measured), ("detection", *place), value)
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=complaint) as raised:
        read_metrics(file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("score", ["ap", "auroc"])
def test_a_score_of_an_unknown_method_is_shown(measured, tmp_path, score):
    place = ("detection", "summary", score, "method")
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(altered(json.loads(measured), place, None)))
    trivox.report(file, tmp_path / "page.html")
