"""Clinical columns from the table of classes to the answer to a new case."""

import csv
import json

import numpy as np
import pytest

import trivox
from classed_phantoms import CASES, UNKNOWN, write_classed_phantoms
from trivox.errors import FormatError, UsageError
from trivox.files import read_json
from trivox.inference.bundle import read_bundle
from trivox.inference.classes.files import read_classes
from trivox.tasks.labels import segmentation
from trivox.tasks.labels.held_out_classes import clinical_warnings

SETTINGS = {
    "network": "unet-tiny",
    "patch_size": [16, 16, 16],
    "batch_size": 2,
    "epochs": 1,
    "iterations_per_epoch": 2,
    "validation_iterations": 1,
    "precision": "fp32",
    "workers": 0,
    "classification.classifier": "lda",
}


def rows():
    """Age tells the class but for one case in ten; sex tells nothing."""
    for index in range(CASES):
        name = f"case_{index:02d}"
        truth = "" if index == UNKNOWN else "ab"[index % 2]
        age = 40 + 30 * (index % 2) + index if index != 6 else ""
        yield {"case": name, "class": truth, "age": age, "sex": "fm"[index // 2 % 2]}


def write_table(file, lines):
    lines = list(lines)
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
    return file


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_classed_phantoms(tmp_path_factory.mktemp("clinical") / "data")


@pytest.fixture(scope="module")
def table(data):
    return write_table(data.parent / "classes.csv", rows())


@pytest.fixture(scope="module")
def run(data, table):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation, "report_run", lambda *given, **options: None)
        trained = trivox.train(
            data,
            data.parent / "run",
            task="multitask",
            preset="quick_test",
            classes=table,
            clinical="age, sex",
            device="cpu",
            set=SETTINGS,
        )
    return trained.folder


def predicted(run, data, out, *lines):
    """Answers to the first cases by what a table says of them."""
    table = None if not lines else write_table(out.parent / f"{out.name}.csv", lines)
    names = out.parent / "names.txt"
    names.write_text("case_00\ncase_01\n")
    trivox.predict(run, data, out, cases=names, clinical=table, device="cpu")
    return {answer.case: answer for answer in read_classes(out / "classes.csv")}


def line(case, age, sex):
    return {"case": case, "age": age, "sex": sex}


def test_features_of_columns_are_those_of_the_training_cases(run):
    with np.load(run / "case-features.npz") as stored:
        names = stored["names"].tolist()
        cases = stored["cases"].tolist()
        features = stored["features"]
    expected = {row["case"]: row for row in rows()}
    for case, values in zip(cases, features, strict=True):
        by_name = dict(zip(names, values.tolist(), strict=True))
        age = expected[case]["age"]
        assert by_name["clinical age"] == pytest.approx(age or np.nan, nan_ok=True)
        assert by_name["clinical age not known"] == (age == "")
        assert by_name["clinical sex f"] == (expected[case]["sex"] == "f")


def test_the_bundle_says_which_columns_are_read(run):
    description = read_bundle(run).description.classification
    assert [column.name for column in description.clinical] == ["age", "sex"]
    assert description.clinical[0].categories == ()
    assert description.clinical[1].categories == ("f", "m")
    assert trivox.info(run)["clinical"] == ["age", "sex"]


def test_figures_with_and_without_them_stand_beside_each_other(run):
    metrics = read_json(run / "validation" / "metrics.json")["classification"]
    named = {row["name"]: row for row in metrics["rows"]}
    assert {"without clinical columns", "clinical columns alone"} <= set(named)
    assert "auc" in named["without clinical columns"]["difference"]
    assert metrics["classifier"]["0"]["clinical"] == ["age", "sex"]


def test_what_a_table_says_decides_the_answer(run, data, tmp_path):
    young = predicted(run, data, tmp_path / "young", line("case_00", 40, "f"))
    old = predicted(run, data, tmp_path / "old", line("case_00", 90, "f"))
    chances = [each["case_00"].probabilities["b"] for each in (young, old)]
    assert chances[0] < chances[1]
    assert young["case_00"].flags == ()
    assert young["case_01"].flags == (
        "age not known: the usual value is taken",
        "sex not known: no category is taken",
    )


def test_values_of_other_cases_change_nothing(run, data, tmp_path):
    one = predicted(run, data, tmp_path / "one", line("case_00", 40, "f"))
    both = predicted(
        run, data, tmp_path / "both", line("case_00", 40, "f"), line("case_01", 80, "x")
    )
    assert one["case_00"].probabilities == both["case_00"].probabilities
    assert both["case_01"].flags == ("sex 'x' was not learnt: no category is taken",)


def test_without_a_table_all_is_unknown_and_said(run, data, tmp_path):
    answers = predicted(run, data, tmp_path / "none")
    assert all(len(answer.flags) >= 2 for answer in answers.values())
    record = json.loads((tmp_path / "none" / "predictions.json").read_text())
    assert "age not known" in str(record["cases"]["case_00"]["class"]["flags"])


def test_another_table_is_predicted_anew(run, data, tmp_path):
    out = tmp_path / "again"
    before = predicted(run, data, out, line("case_00", 40, "f"))
    after = predicted(run, data, out, line("case_00", 90, "f"))
    assert before["case_00"].probabilities != after["case_00"].probabilities


def test_a_table_that_the_model_cannot_read_is_one_line(run, data, tmp_path):
    with pytest.raises(FormatError, match="age is 'old', the model learnt numbers"):
        predicted(run, data, tmp_path / "text", line("case_00", "old", "f"))
    assert not (tmp_path / "text").exists()


REFUSED = {
    "has no column 'weight'": ("age,weight", FormatError),
    "is the class itself": ("class", FormatError),
    "name columns that a model with classes reads": (" , ", UsageError),
}


@pytest.mark.parametrize("why", REFUSED)
def test_training_refuses_before_anything_is_written(data, table, tmp_path, why):
    columns, kind = REFUSED[why]
    with pytest.raises(kind, match=why):
        trivox.train(
            data, tmp_path / "run", task="multitask", classes=table, clinical=columns
        )
    assert not (tmp_path / "run").exists()


def test_a_segmentation_reads_no_columns(data, table, tmp_path):
    with pytest.raises(UsageError, match="--clinical age"):
        trivox.train(data, tmp_path / "run", classes=table, clinical="age")


def test_an_export_refuses_what_it_could_not_be_given(run, tmp_path):
    with pytest.raises(UsageError, match=r"reads clinical columns \(age, sex\)"):
        trivox.export(run, tmp_path / "export", to="onnx")
    assert not (tmp_path / "export").exists()


def section(auc, without, interval):
    row = {
        "name": "without clinical columns",
        "summary": {"auc": {"value": without}},
        "difference": {"auc": {"ci95": interval}},
    }
    return {"rows": [row], "summary": {"auc": {"value": auc}}}


def test_columns_that_do_not_help_are_said_to():
    assert clinical_warnings({"rows": [], "summary": {}}) == []
    assert clinical_warnings(section(0.9, 0.8, [0.02, 0.2])) == []
    (warning,) = clinical_warnings(section(0.81, 0.8, [-0.1, 0.12]))
    assert "do not measurably help: AUC 0.810 with and 0.800 without" in warning
    (warning,) = clinical_warnings(section(None, None, None))
    assert "AUC unknown with" in warning
