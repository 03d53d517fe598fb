"""`trivox evaluate` and `trivox report` of synthetic CTs, from files to the page."""

import json
import sys

import numpy as np
import pytest

from thoraxes import exam_of_chest
from trivox.cli import main
from trivox.datasets.exams import write_exam
from trivox.evaluation.metrics.volumes import NOTICE
from trivox.projection.geometry import Grid
from trivox.projection.grids import placed
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

FINE = Grid((32, 32, 32), (10.0, 10.0, 10.0))
COARSE = FINE.resized((16, 16, 16))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two exams, their CTs alone, and reconstructions of them and of a third case."""
    root = tmp_path_factory.mktemp("volumes")
    for index, name in enumerate(("anna", "bert")):
        isocentre = (30.0 * index, -10.0, 5.0)
        hounsfield, exam = exam_of_chest(FINE, seed=index, isocentre=isocentre)
        volume = placed(hounsfield.round().astype(np.int16), FINE, isocentre=isocentre)
        write_exam(
            root / "exams" / "patients" / name,
            exam.xrays.images[0].numpy(),
            exam.xrays.geometry,
            isocentre=isocentre,
            volume=volume,
        )
        write_volume(root / "cts" / f"{name}.nii.gz", volume)
        blocks = hounsfield.reshape(16, 2, 16, 2, 16, 2).mean((1, 3, 5))
        prediction = placed(blocks + 50 * (index + 1), COARSE, isocentre=isocentre)
        write_volume(root / "out" / f"{name}.nii.gz", prediction)
    write_volume(root / "out" / "carl.nii.gz", prediction)
    return root


@pytest.fixture
def run(folders, monkeypatch, capsys):
    """Run a command in the folder; returns its exit code and what it printed."""
    monkeypatch.chdir(folders)

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


def test_from_exams_to_report(run, folders):
    code, printed = run("evaluate", "out", "exams", "--out", "m.json")
    assert code == 0, printed.err
    metrics = json.loads((folders / "m.json").read_text())
    assert (metrics["task"], metrics["format_version"]) == ("reconstruction", 1)
    assert list(metrics["cases"]) == ["anna", "bert"]
    rows = [case["volume"] for case in metrics["cases"].values()]
    assert [row["mae_hu"] for row in rows] == pytest.approx([50, 100], abs=0.5)
    assert all(0 < row["projection_rmse"] < 2 for row in rows)
    assert all(row["psnr_ceiling_db"] < 60 for row in rows)
    assert "prediction without a reference CT, not measured: carl" in printed.out
    assert "2 of 2 references were brought to the grid of the prediction" in printed.out
    psnr = metrics["summary"]["volume"]["psnr_db"]["mean"]
    assert f"PSNR {psnr:.2f} dB" in printed.out
    code, printed = run("report", "m.json")
    assert code == 0, printed.err
    page = (folders / "m.html").read_text()
    assert NOTICE in page
    assert "anna" in page


def test_a_folder_of_cts_gives_the_same_without_x_rays(run, folders):
    assert run("evaluate", "out", "exams", "--out", "a.json")[0] == 0
    assert run("evaluate", "out", "cts", "--out", "b.json")[0] == 0
    exams = json.loads((folders / "a.json").read_text())
    cts = json.loads((folders / "b.json").read_text())
    for name, case in cts["cases"].items():
        assert case["volume"] == {
            **exams["cases"][name]["volume"],
            "projection_rmse": None,
        }


def test_one_file_against_another_whatever_they_are_called(run, folders):
    files = ("out/anna.nii.gz", "cts/bert.nii.gz")
    assert run("evaluate", *files, "--out", "c.json")[0] == 0
    assert list(json.loads((folders / "c.json").read_text())["cases"]) == ["anna"]


def test_the_window_is_a_setting(run, folders):
    window = ("--set", "window=[-1000,1024]")
    assert run("evaluate", "out", "cts", "--out", "d.json", *window)[0] == 0
    convention = json.loads((folders / "d.json").read_text())["convention"]
    assert "R = 2024 HU" in convention["psnr_db"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--set", "window=[5,1]"), 1, "the lower first"),
        (("--set", "tolerance_mm=1"), 1, "--set tolerance_mm"),
        (("--whole", "all"), 2, "not label maps"),
    ],
)
def test_settings_of_label_maps_are_refused(run, arguments, code, message):
    exit_code, printed = run("evaluate", "out", "cts", *arguments)
    assert exit_code == code, printed.err
    assert message in " ".join(printed.err.split())


def test_cases_of_other_names_are_an_error_in_one_line(run, folders):
    write_volume(
        folders / "other" / "dora.nii.gz",
        Volume(np.zeros((1, 4, 4, 4), np.int16), np.eye(4)),
    )
    code, printed = run("evaluate", "other", "cts")
    assert code == 1
    assert "no case name is in both (dora and anna, bert)" in printed.err
    assert len(printed.err.strip().splitlines()) == 1


def test_label_maps_are_still_label_maps(run, folders):
    labels = np.zeros((1, 8, 8, 8), np.int16)
    labels[:, 2:5, 2:5, 2:5] = 1
    for folder in ("maps", "truth"):
        write_volume(
            folders / folder / "a.nii.gz",
            Volume(labels, affine_from_spacing((1, 1, 1))),
        )
    code, printed = run("evaluate", "maps", "truth", "--out", "e.json")
    assert code == 0, printed.err
    assert "Dice" in printed.out
