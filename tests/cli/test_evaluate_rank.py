"""`trivox evaluate --convention` and `trivox rank`, from files to files."""

import json
import sys

import numpy as np
import pytest

from brats_cases import ISOTROPIC, REGIONS, brats_cases
from trivox.cli import main
from trivox.evaluation.conventions.choice import CONVENTIONS, choose_convention
from trivox.files import write_json
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

CASES = {
    name: case
    for name, case in brats_cases().items()
    if name in ("perfect", "no_overlap", "small_lesions")
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An nnU-Net dataset with regions, and the predictions of two models."""
    root = tmp_path_factory.mktemp("brats")
    for name, (prediction, reference, spacing) in CASES.items():
        shifted = np.roll(prediction, 2, axis=0)
        for file, array in (
            (f"data/imagesTr/{name}_0000", reference),
            (f"data/labelsTr/{name}", reference),
            (f"good/{name}", prediction),
            (f"shifted/{name}", shifted),
        ):
            write_volume(
                root / f"{file}.nii.gz",
                Volume(array[None], affine_from_spacing(spacing)),
            )
    labels = {"background": 0} | {
        name: list(values) for name, values in REGIONS.items()
    }
    write_json(
        root / "data" / "dataset.json",
        {
            "channel_names": {"0": "T1"},
            "labels": labels,
            "regions_class_order": [2, 1, 3],
            "numTraining": len(CASES),
            "file_ending": ".nii.gz",
        },
    )
    return root


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a command; returns its exit code and what it printed."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["trivox", *(str(a) for a in arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code or 0, capsys.readouterr()

    return call


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_convention_from_files_to_report(run, folders, tmp_path, name):
    code, printed = run(
        "evaluate", folders / "good", folders / "data", "--convention", name
    )
    assert code == 0, printed.err
    assert "WT" in printed.out
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["task"] == "segmentation"
    assert metrics["convention"]["name"] == name
    assert metrics["warnings"] == []
    assert_measured_by(choose_convention(name), metrics["cases"])
    for row in metrics["summary"].values():
        assert {"mean", "std", "median", "ci95", "n"} <= set(row["dice"])
    lesion_wise = name in ("brats-lesion-wise", "brats-instance")
    assert ("lesions_missed" in metrics["summary"]["WT"]) == lesion_wise
    assert "volume_ml" in metrics["summary"]["WT"]
    sums = {"lesions_missed", "volume_ml", "lesions", "empty"}
    assert not sums & set(metrics["summary"]["mean"])  # they make no sense there
    code, printed = run("report", "metrics.json")
    assert code == 0, printed.err
    html = (tmp_path / "metrics.html").read_text()
    for heading, names in {
        "Lesions missed": ("brats-lesion-wise", "brats-instance"),
        "PQ": ("brats-instance",),
        "Dice": tuple(CONVENTIONS),
        "Specificity": ("brats-legacy", "brats-lesion-wise"),
        "ASSD (mm)": ("trivox",),
    }.items():
        assert (f">{heading}</button>" in html) == (name in names)


def assert_measured_by(convention, cases):
    for case, (prediction, reference, _) in CASES.items():
        expected = convention.evaluate(
            prediction, reference, spacing=ISOTROPIC, targets=REGIONS
        )
        assert set(cases[case]) == set(REGIONS)
        for region in REGIONS:
            for metric in convention.ranked:
                close = pytest.approx(expected[region][metric], rel=1e-6)
                assert cases[case][region][metric] == close


def test_parameters_reach_the_metrics(run, folders, tmp_path):
    arguments = (
        "evaluate",
        folders / "good",
        folders / "data",
        "--convention",
        "brats-lesion-wise",
    )
    run(*arguments, "--out", "gli.json")
    run(
        *arguments,
        "--set",
        "dilation=1",
        "--set",
        "min_lesion_mm3=2",
        "--out",
        "met.json",
    )
    gli = json.loads((tmp_path / "gli.json").read_text())
    met = json.loads((tmp_path / "met.json").read_text())
    assert met["convention"]["dilation"] == 1
    assert met["convention"]["min_lesion_mm3"] == 2
    assert gli["cases"]["small_lesions"]["WT"]["lesions_missed"] == 0
    assert met["cases"]["small_lesions"]["WT"]["lesions_missed"] == 1


def test_rank_from_files(run, folders, tmp_path):
    for model in ("good", "shifted"):
        out = tmp_path / model / "metrics.json"
        run(
            "evaluate",
            folders / model,
            folders / "data",
            "--convention",
            "brats-legacy",
            "--out",
            out,
        )
    code, printed = run(
        "rank", "shifted/metrics.json", "good/metrics.json", "--out", "ranking.json"
    )
    assert code == 0, printed.err
    assert printed.out.index("1  good") < printed.out.index("2  shifted")
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert list(ranking["models"]) == ["good", "shifted"]
    code, printed = run(
        "rank",
        "shifted/metrics.json",
        "good/metrics.json",
        "--names",
        "B,A",
        "--metric",
        "hd95_mm",
    )
    assert "hd95_mm)" in printed.out
    assert "B" in json.loads((tmp_path / "ranking.json").read_text())["models"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--convention", "brats-legacy", "--set", "dilation=1"],
            "no parameter 'dilation'",
        ),
        (
            ["--convention", "brats-legacy", "--tolerance-mm", "1"],
            "no parameter 'tolerance_mm'",
        ),
        (
            ["--convention", "brats-lesion-wise", "--set", "dilation"],
            "write it as key=value",
        ),
        (["--tolerance-mm", "-1"], "tolerance_mm"),
    ],
)
def test_wrong_options_of_evaluate_are_one_line(
    run, folders, tmp_path, arguments, message
):
    code, printed = run("evaluate", folders / "good", folders / "data", *arguments)
    assert (code, printed.err.count("\n")) == (1, 1)
    assert message in printed.err
    assert not (tmp_path / "metrics.json").exists()


def test_wrong_files_for_rank_are_one_line(run, folders, tmp_path):
    run("evaluate", folders / "good", folders / "data", "--out", "a.json")
    run(
        "evaluate",
        folders / "good",
        folders / "data",
        "--convention",
        "brats-legacy",
        "--out",
        "b.json",
    )
    (tmp_path / "c.json").write_text("{}")
    for files, message in (
        (["a.json"], "at least two"),
        (["a.json", "b.json"], "different conventions"),
        (["a.json", "c.json"], "is no metrics"),
        (["a.json", "a.json"], "several models are named a"),
        (["a.json", "gone.json"], "file not found"),
        (["a.json", "a.json", "--names", "x"], "need 2 names"),
    ):
        code, printed = run("rank", *files, "--out", "ranking.json")
        assert (code, printed.err.count("\n")) == (1, 1), printed.err
        assert message in printed.err
    assert not (tmp_path / "ranking.json").exists()
