import json
from functools import partial

import numpy as np
import pytest

from class_predictions import SUBTYPES, drawn_predictions
from trivox.datasets.dataset import Case, Dataset
from trivox.errors import DataError, FormatError
from trivox.evaluation.folders.class_answers import measure_answers
from trivox.evaluation.folders.labels import evaluate_folders
from trivox.evaluation.metrics.classification import ClassPredictions, measure_classes
from trivox.inference.classes.files import ClassAnswer, write_classes
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

measure_folders = partial(evaluate_folders, task="multitask")

GIVEN = drawn_predictions((4, 6, 5), classes=SUBTYPES)
TRUTH = {name: SUBTYPES[i] for name, i in zip(GIVEN.names, GIVEN.truth, strict=True)}
ROUNDED = ClassPredictions(
    GIVEN.names, GIVEN.truth, GIVEN.probabilities.round(6), SUBTYPES
)


@pytest.fixture
def folder(tmp_path):
    """Predictions that hold classes.csv alone."""
    chances = [
        dict(zip(SUBTYPES, row, strict=True)) for row in GIVEN.probabilities.tolist()
    ]
    rows = [
        ClassAnswer(name, chance, ("doubt",) * (name == "quiz_003"))
        for name, chance in zip(GIVEN.names, chances, strict=True)
    ]
    write_classes(tmp_path / "out" / "classes.csv", rows, classes=SUBTYPES)
    return tmp_path / "out"


def table(path, truth=TRUTH, header="case,class"):
    path.write_text(
        header + "\n" + "".join(f"{name},{given}\n" for name, given in truth.items())
    )
    return path


def dataset(truth, *, others=(), classes=SUBTYPES):
    cases = [
        Case(name=name, images=(), class_name=given) for name, given in truth.items()
    ]
    cases += [
        Case(name=f"train_{i}", images=(), class_name=given)
        for i, given in enumerate(others)
    ]
    return Dataset(
        name="d",
        root="/d",
        layout="x",
        channels=("CT",),
        classes=classes,
        cases=tuple(cases),
    )


def same(section, predictions=ROUNDED):
    assert section["summary"] == measure_classes(predictions, seed=0)


def test_classes_alone_are_measured_against_a_table(folder, tmp_path):
    metrics = measure_folders(folder, table(tmp_path / "truth.csv"))
    same(metrics["classification"])
    assert metrics["classification"]["cases"]["quiz_003"]["flags"] == ["doubt"]
    assert (metrics["cases"], metrics["summary"], metrics["warnings"]) == ({}, {}, [])
    assert measure_folders(folder / "classes.csv", tmp_path / "truth.csv") == metrics
    assert (metrics["task"], metrics["format_version"]) == ("multitask", 1)
    json.dumps(metrics, allow_nan=False)


def test_numbers_stand_for_classes_as_result_files_write_them(folder, tmp_path):
    numbered = {f"{name}.nii.gz": given[-1] for name, given in TRUTH.items()}
    same(
        measure_folders(folder, table(tmp_path / "t.csv", numbered, "Names,Subtype"))[
            "classification"
        ]
    )


def test_label_maps_and_classes_stand_in_one_file(folder, tmp_path):
    labels = np.zeros((1, 6, 7, 8), np.uint8)
    labels[:, 2:5, 2:5, 2:6] = 1
    for name in GIVEN.names[:3]:
        for where in (folder, tmp_path / "labels"):
            write_volume(
                where / f"{name}.nii.gz", Volume(labels, affine_from_spacing((1, 1, 1)))
            )
    metrics = measure_folders(
        folder, tmp_path / "labels", classes=table(tmp_path / "truth.csv")
    )
    assert set(metrics["cases"]) == set(GIVEN.names[:3])
    same(metrics["classification"])
    without = measure_folders(folder, tmp_path / "labels")
    assert "classification" not in without
    assert "the references have no classes" in without["warnings"][0]
    only = measure_folders(folder, tmp_path / "truth.csv")
    assert only["warnings"] == ["label maps are not measured: the references hold none"]
    same(only["classification"])


def test_a_dataset_gives_classes_and_what_most_training_cases_have(folder):
    section, warnings = measure_answers(
        folder, table=None, dataset=dataset(TRUTH, others=["subtype0"] * 9)
    )
    same(section)
    assert warnings == []
    assert section["rows"][1]["summary"]["recall"]["subtype0"]["value"] == 1
    alone, _ = measure_answers(folder, table=None, dataset=dataset(TRUTH))
    assert alone["rows"][1]["summary"]["recall"]["subtype1"]["value"] == 1


def test_a_table_goes_before_the_classes_of_the_dataset(folder, tmp_path):
    other = dict.fromkeys(TRUTH, "subtype0")
    same(
        measure_answers(
            folder, table=table(tmp_path / "t.csv"), dataset=dataset(other)
        )[0]
    )


def test_answers_without_a_known_class_are_named_and_left_out(folder, tmp_path):
    some = {name: given for name, given in TRUTH.items() if name != "quiz_002"}
    some["quiz_999"] = "subtype0"
    section = measure_folders(folder, table(tmp_path / "t.csv", some))["classification"]
    assert section["cases"]["quiz_002"]["class"] is None
    assert sum(section["summary"]["support"].values()) == len(TRUTH) - 1
    warnings = " ".join(section["warnings"])
    assert "1 of 15 answered cases have no known class" in warnings
    assert "1 rows of" in warnings


def test_what_cannot_be_measured_is_an_error(folder, tmp_path):
    strange = table(tmp_path / "strange.csv", {**TRUTH, "quiz_004": "other"})
    with pytest.raises(
        DataError,
        match="quiz_004 has class 'other', the answers are subtype0, subtype1, subtype2",
    ):
        measure_folders(folder, strange)
    with pytest.raises(DataError, match="class of none of the 15"):
        measure_answers(folder, table=None, dataset=dataset({"x": "subtype0"}))
    with pytest.raises(FormatError, match="none of its 1 rows"):
        measure_folders(folder, table(tmp_path / "t.csv", {"x": "subtype0"}))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no classes\.csv"):
        measure_folders(tmp_path / "empty", strange)
