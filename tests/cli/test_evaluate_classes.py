"""`trivox evaluate` with classes and with all labels together, from files to the
report.
"""

import json
import sys

import numpy as np
import pytest

from class_predictions import SUBTYPES, drawn_predictions
from trivox.cli import main
from trivox.inference.classes.files import ClassAnswer, write_classes
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

GIVEN = drawn_predictions((9, 15, 12), classes=SUBTYPES)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command in a folder with predictions and references; returns its exit code
    and what it printed.
    """
    monkeypatch.chdir(tmp_path)
    rows = [
        ClassAnswer(name, dict(zip(SUBTYPES, chance, strict=True)))
        for name, chance in zip(GIVEN.names, GIVEN.probabilities.tolist(), strict=True)
    ]
    write_classes(tmp_path / "out" / "classes.csv", rows, classes=SUBTYPES)
    lines = [
        f"{name}.nii.gz,{truth}\n"
        for name, truth in zip(GIVEN.names, GIVEN.truth, strict=True)
    ]
    (tmp_path / "truth.csv").write_text("Names,Subtype\n" + "".join(lines))
    labels = np.zeros((1, 8, 9, 10), np.uint8)
    labels[:, 2:6, 2:6, 2:6] = 1
    labels[:, 3:5, 3:5, 3:5] = 2
    for name in GIVEN.names[:2]:
        write_volume(
            tmp_path / "labels" / f"{name}.nii.gz",
            Volume(labels, affine_from_spacing((2, 1, 1))),
        )
        write_volume(
            tmp_path / "out" / f"{name}.nii.gz",
            Volume(labels.clip(max=1), affine_from_spacing((2, 1, 1))),
        )

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["trivox", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code or 0, capsys.readouterr()

    return call


def test_from_files_to_report(run, tmp_path):
    code, printed = run(
        "evaluate", "out", "labels", "--classes", "truth.csv", "--whole", "pancreas"
    )
    assert code == 0, printed.err
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["task"], metrics["format_version"]) == ("multitask", 1)
    f1 = metrics["classification"]["summary"]["macro_f1"]
    low, high = f1["ci95"]
    assert f"macro-F1 {f1['value']:.3f} [{low:.3f}, {high:.3f}], AUC" in printed.out
    assert "over 36 cases" in printed.out
    assert "pancreas 1.0000" in printed.out
    for warning in metrics["classification"]["warnings"]:
        assert f"warning: {warning}" in printed.out
    code, printed = run("report", "metrics.json")
    assert code == 0, printed.err
    assert "Class of the case" in (tmp_path / "metrics.html").read_text()


def test_all_labels_together_do_not_count_in_the_mean(run, tmp_path):
    run("evaluate", "out", "labels", "--whole", "pancreas")
    with_it = json.loads((tmp_path / "metrics.json").read_text())
    run("evaluate", "out", "labels")
    without = json.loads((tmp_path / "metrics.json").read_text())
    assert with_it["task"] == without["task"] == "segmentation"
    for row in with_it["cases"].values():
        assert row["pancreas"]["dice"] == 1
        assert row["label_1"]["dice"] < 1
        assert row["label_2"]["dice"] == 0
    assert with_it["summary"]["mean"] == without["summary"]["mean"]
    assert with_it["summary"]["pancreas"]["dice"]["mean"] == 1
    assert "'pancreas' is all labels together" in with_it["convention"]["whole"]
    assert "whole" not in without["convention"]
    code, printed = run("evaluate", "out", "labels", "--whole", "label_1")
    assert code == 1
    assert "'label_1' is a label or region already" in printed.err


def test_classes_alone(run, tmp_path):
    for file in (tmp_path / "out").glob("*.nii.gz"):
        file.unlink()
    code, printed = run("evaluate", "out", "truth.csv")
    assert code == 0, printed.err
    assert "classes: macro-F1" in printed.out
    assert "Dice" not in printed.out
    assert run("report", "metrics.json")[0] == 0


def test_malformed_answers_are_one_clear_line(run, tmp_path):
    (tmp_path / "out" / "classes.csv").write_text(
        "case,class,probability_a,probability_b\nx,a,2,0\n"
    )
    code, printed = run("evaluate", "out", "truth.csv")
    assert code == 1
    assert "classes.csv, line 2: '2' is no probability" in printed.err
