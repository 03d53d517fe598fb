"""Runs, bundles, predictions and metrics of 0.1.0 are still read."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

import trivox
from blank_figures import blank_figures
from json_schemas import complaints
from trivox.evaluation.folders.agreement import names_methods, without_intervals
from trivox.files import read_json
from trivox.inference.bundle import bundle_content
from trivox.tasks.choice import task_of
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import read_volume

ARCHIVES = Path(__file__).parent / "golden" / "0.1.0"
MODELS = ("segmentation", "multitask", "reconstruction")
TINY = {
    "network": "unet-tiny",
    "patch_size": [16, 16, 16],
    "batch_size": 2,
    "epochs": 1,
    "iterations_per_epoch": 1,
    "validation_iterations": 1,
    "precision": "fp32",
    "workers": 0,
}


@pytest.fixture(scope="module")
def unpack(tmp_path_factory):
    """The folder of a task with `data`, `run`, `predictions` and `metrics.json`."""
    folder = tmp_path_factory.mktemp("old")

    def unpacked(task):
        if not (folder / task).exists():
            with tarfile.open(ARCHIVES / f"{task}.tar.xz") as archive:
                archive.extractall(folder, filter="data")
            for file in (folder / task).rglob("*.json"):
                text = file.read_text(encoding="utf-8")
                file.write_text(text.replace("/elsewhere", str(folder)), "utf-8")
        return folder / task

    return unpacked


@pytest.mark.parametrize("task", MODELS)
def test_an_old_bundle_predicts_what_it_predicted(unpack, tmp_path, task):
    old = unpack(task)
    assert task_of(old / "run").name == task
    predictions = trivox.predict(
        old / "run", old / "data", tmp_path, device="cpu", precision="fp32"
    )
    assert not predictions.failed
    for file in tmp_path.glob("*_0*.json"):  # of exams whose CT is known
        assert complaints("case-file", read_json(file)) == []
    for file in (old / "predictions").glob("*.nii.gz"):
        before = read_volume(file)
        now = read_volume(tmp_path / file.name)
        assert np.array_equal(before.affine, now.affine)
        different = (before.array != now.array).mean()
        assert different <= 0.001  # sums on another processor


@pytest.mark.parametrize("task", MODELS)
def test_old_predictions_are_recognised_as_done(unpack, tmp_path, task):
    old = unpack(task)
    shutil.copytree(old / "predictions", tmp_path / "out")
    times = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nii.gz")}
    # written with the default precision of the machine that made them
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["model"]
    trivox.predict(
        old / "run", old / "data", tmp_path / "out", device="cpu", precision="fp32"
    )
    if "settings" not in content or content["settings"]["precision"] == "fp32":
        assert times == {file: file.stat().st_mtime_ns for file in times}


@pytest.mark.parametrize("task", MODELS)
def test_old_metrics_are_measured_again_to_the_same_numbers(unpack, tmp_path, task):
    old = unpack(task)
    before = json.loads((old / "metrics.json").read_text())
    evaluation = trivox.evaluate(
        old / "predictions", old / "data", tmp_path / "metrics.json"
    )
    assert evaluation.metrics["task"] == task
    now = json.loads((tmp_path / "metrics.json").read_text())
    assert known(now["cases"], before["cases"]) == before["cases"]
    # Intervals were percentile bootstraps then.
    summary = without_intervals(before["summary"])
    assert known(now["summary"], summary) == summary
    assert names_methods(now["summary"])
    assert not names_methods(before["summary"])


def test_old_intervals_are_named_in_the_report_and_not_checked(unpack, tmp_path):
    old = unpack("segmentation")
    page = trivox.report(old / "metrics.json", tmp_path / "m.html").read_text("utf-8")
    assert "95 % interval of the mean (percentile bootstrap)" in page
    shutil.copytree(old / "predictions", tmp_path / "predictions")
    trivox.evaluate(tmp_path / "predictions", old / "data", tmp_path / "m.json")
    content = json.loads((tmp_path / "m.json").read_text())
    content["summary"] = json.loads((old / "metrics.json").read_text())["summary"]
    (tmp_path / "m.json").write_text(json.dumps(content))
    lines = trivox.verify(tmp_path / "m.json").lines
    assert any("not checked: intervals of the summary" in line for line in lines)
    assert lines[-1].endswith("all agree")


def test_old_and_new_metrics_are_ranked_together(unpack, tmp_path):
    old = unpack("segmentation")
    trivox.evaluate(old / "predictions", old / "data", tmp_path / "new.json")
    files = [old / "metrics.json", tmp_path / "new.json"]
    ranking = trivox.rank(files, tmp_path / "ranking.json", names="old,new")
    assert [row["place"] for row in ranking.content["models"].values()] == [1, 1]


def known(now, before):
    """What stands in `now` of what `before` has, at every level; numbers that differ by
    single precision's rounding are the same.
    """
    if isinstance(before, list):
        return [known(*pair) for pair in zip(now, before, strict=True)]
    if isinstance(before, float) and now == pytest.approx(before, rel=1e-5):
        return before
    if not isinstance(before, dict):
        return now
    assert set(before) <= set(now)
    return {name: known(now[name], value) for name, value in before.items()}


def test_an_old_model_says_nothing_of_intervals_of_volumes(unpack, tmp_path):
    old = unpack("segmentation")
    trivox.predict(old / "run", old / "data", tmp_path, device="cpu", statistics=True)
    records = json.loads((tmp_path / "predictions.json").read_text())["cases"]
    measured = json.loads((tmp_path / "statistics.json").read_text())["cases"]
    assert records.keys() == measured.keys()
    for name, record in records.items():
        for volume in record["volumes"].values():
            assert "volume_ml_low" not in volume
        for row in measured[name]["structures"].values():
            assert row["volume_ml_low"] is row["volume_ml_high"] is None


@pytest.mark.parametrize("task", MODELS)
def test_old_runs_and_metrics_are_reported(unpack, tmp_path, task):
    old = unpack(task)
    page = trivox.report(old / "run", tmp_path / "run.html").read_text("utf-8")
    assert "<html" in page
    page = trivox.report(old / "metrics.json", tmp_path / "m.html").read_text("utf-8")
    synthetic = "synthetic CT" in page
    assert synthetic == (task == "reconstruction")


@pytest.mark.parametrize("task", MODELS)
def test_an_old_run_is_described(unpack, task):
    facts = trivox.info(unpack(task) / "run")
    assert facts["task"] == task
    assert facts["parameters"] > 0
    content = bundle_content(unpack(task) / "run")[1]
    assert content["trivox_version"] == "0.1.0"


@pytest.mark.parametrize("task", MODELS)
def test_an_old_finished_run_resumes_to_its_end(unpack, tmp_path, task):
    old = unpack(task)
    run = tmp_path / "run"
    shutil.copytree(old / "run", run)
    request = RunRequest(
        old / "data", run, "quick_test", task=task, device="cpu", resume=True
    )
    with blank_figures():
        metrics = run_request(request)
    assert metrics["task"] == task
    assert (run / "report.html").exists()


def test_old_pretrained_weights_are_a_start(unpack, tmp_path):
    pretrained = unpack("pretraining") / "run"
    run = trivox.train(
        unpack("segmentation") / "data",
        tmp_path / "run",
        preset="quick_test",
        pretrained=pretrained,
        device="cpu",
        set=TINY,
    )
    transfer = json.loads((run.folder / "transfer.json").read_text())
    assert transfer["share"] > 0.99


def test_an_old_pretraining_resumes(unpack, tmp_path):
    old = unpack("pretraining")
    run = tmp_path / "run"
    shutil.copytree(old / "run", run)
    data = unpack("segmentation") / "data"
    shutil.copyfile(old / "run" / "splits.json", run / "splits.json")
    facts = trivox.pretrain(data, run, preset="quick_test", resume=True).facts
    assert facts["network"] == "unet-tiny"
