import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.errors import ResourceError, UsageError
from trivox.inference import writing
from trivox.inference.doubt.kinds import KINDS, Extras
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.inference.reconstructor import Reconstructor
from trivox.volumes.formats import read_labels, read_volume


@pytest.fixture(scope="module")
def predictor(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture
def cases(tiny_data, predictor):
    return load_inputs(tiny_data, channels=predictor.channels)[:3]


def giving(predictor, *, probabilities=False, uncertainty=()):
    """The predictor, asked for more than label maps."""
    extras = Extras(probabilities=probabilities, uncertainty=tuple(uncertainty))
    return replace(predictor, extras=extras)


def done_at(out):
    """When each finished map was written; names of unfinished ones begin with a dot."""
    files = (path for path in out.glob("*.nii.gz") if not path.name.startswith("."))
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_every_case_has_a_label_map_and_a_record(predictor, cases, tmp_path):
    records = predict_cases(predictor, cases, tmp_path)
    content = json.loads((tmp_path / "predictions.json").read_text())
    assert content["model"] == predictor.identity
    assert content["cases"] == records
    for case in cases:
        record = records[case.name]
        assert set(record) == {
            "inputs",
            "sources",
            "output",
            "seconds",
            "warnings",
            "written",
            "volumes",
        }
        assert record["inputs"] == [str(path) for path in case.images]
        assert record["output"] == f"{case.name}.nii.gz"
        assert set(np.unique(read_labels(tmp_path / record["output"]).array)) <= {
            0,
            7,
            300,
        }
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{c.name}.nii.gz" for c in cases
    } | {"predictions.json"}


def test_finished_cases_are_kept_and_only_missing_ones_are_done(
    predictor, cases, tmp_path
):
    predict_cases(predictor, cases, tmp_path)
    before = done_at(tmp_path)
    (tmp_path / f"{cases[1].name}.nii.gz").unlink()
    lines = []
    predict_cases(predictor, cases, tmp_path, say=lines.append)
    after = done_at(tmp_path)
    assert [name for name in before if before[name] != after[name]] == [
        f"{cases[1].name}.nii.gz"
    ]
    assert "2 of 3" in lines[0]


def test_what_a_dead_process_left_half_written_is_removed(
    predictor, cases, tmp_path, dead_process
):
    (tmp_path / f".tmp-{dead_process}-x.nii.gz").write_bytes(b"half")
    predict_cases(predictor, cases[:1], tmp_path)
    assert not list(tmp_path.glob(".tmp-*"))


def test_overwrite_does_everything_again(predictor, cases, tmp_path):
    predict_cases(predictor, cases, tmp_path)
    before = done_at(tmp_path)
    predict_cases(predictor, cases, tmp_path, overwrite=True)
    assert all(done_at(tmp_path)[name] != before[name] for name in before)


@pytest.mark.parametrize("what", ["model", "settings", "inputs"])
def test_another_model_setting_or_input_is_predicted_anew(
    predictor, tiny_run, cases, tmp_path, what
):
    out = tmp_path / "out"
    predict_cases(predictor, cases, out)
    before = done_at(out)
    if what == "model":
        predictor = Predictor.load([tiny_run, tiny_run], device="cpu", precision="fp32")
    if what == "settings":
        predictor = Predictor.load(
            tiny_run, device="cpu", precision="fp32", mirror=True
        )
    if what == "inputs":
        copies = [shutil.copy(case.images[0], tmp_path) for case in cases]
        cases = [
            c.model_copy(update={"images": (tmp_path / p,)})
            for c, p in zip(cases, copies, strict=True)
        ]
    predict_cases(predictor, cases, out)
    assert all(done_at(out)[name] != before[name] for name in before)


def test_probabilities_asked_for_later_are_written(predictor, cases, tmp_path):
    predict_cases(predictor, cases[:1], tmp_path)
    predict_cases(giving(predictor, probabilities=True), cases[:1], tmp_path)
    assert (tmp_path / f"{cases[0].name}_probabilities.nii.gz").exists()


@pytest.fixture(scope="module")
def mirrored(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32", mirror=True)


def test_kinds_of_doubt_are_written_beside_the_labels(mirrored, cases, tmp_path):
    predictor = giving(mirrored, probabilities=True, uncertainty=KINDS)
    records = predict_cases(predictor, cases[:1], tmp_path)
    labels = read_volume(tmp_path / f"{cases[0].name}.nii.gz")
    for kind in KINDS:
        volume = read_volume(tmp_path / f"{cases[0].name}_{kind}.nii.gz")
        assert volume.shape == labels.shape
        assert volume.array.dtype == np.float32
        assert np.array_equal(volume.affine, labels.affine)
        assert volume.array.max() > 0
    assert records[cases[0].name]["votes"] == 2
    assert set(records[cases[0].name]["volumes"]["organ"]) == {
        "volume_ml",
        "ci95_ml",
        "expected_ml",
        "method",
    }
    assert json.loads((tmp_path / "predictions.json").read_text())["cases"] == records


def test_a_kind_asked_for_later_is_predicted_and_one_asked_for_before_is_kept(
    mirrored, cases, tmp_path
):
    def predict(*kinds):
        predict_cases(giving(mirrored, uncertainty=kinds), cases[:2], tmp_path)
        return done_at(tmp_path)

    early = predict("entropy")
    predict("entropy")
    assert predict() == early
    late = predict("entropy", "variance")
    assert len(late) == 6
    assert all(late[name] != early[name] for name in early)
    (tmp_path / f"{cases[1].name}_variance.nii.gz").unlink()
    again = predict("variance")
    assert all((again[name] == late[name]) is (cases[0].name in name) for name in again)


def test_maps_of_another_prediction_do_not_stand_beside_new_labels(
    predictor, mirrored, cases, tmp_path
):
    rich = giving(mirrored, probabilities=True, uncertainty=KINDS)
    predict_cases(rich, cases[:1], tmp_path)
    predict_cases(giving(predictor, uncertainty=["entropy"]), cases[:1], tmp_path)
    assert set(done_at(tmp_path)) == {
        f"{cases[0].name}_entropy.nii.gz",
        f"{cases[0].name}.nii.gz",
    }
    missing = cases[0].model_copy(update={"images": (tmp_path / "gone.nii.gz",)})
    predict_cases(predictor, [missing], tmp_path)
    assert not done_at(tmp_path)


def test_kinds_that_cannot_be_given_are_refused_before_anything_begins(predictor):
    with pytest.raises(UsageError, match="single vote"):
        giving(predictor, uncertainty=["entropy", "mutual_information"])


def test_a_bad_case_is_set_aside_and_the_others_go_on(predictor, cases, tmp_path):
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"junk")
    broken = [cases[0], cases[1].model_copy(update={"images": (bad,)}), cases[2]]
    out = tmp_path / "out"
    lines = []
    records = predict_cases(predictor, broken, out, say=lines.append)
    assert "bad.nii.gz" in records[cases[1].name]["error"]
    assert sorted(done_at(out)) == [f"{c.name}.nii.gz" for c in (cases[0], cases[2])]
    assert any(cases[1].name in line and "set aside" in line for line in lines)
    records = predict_cases(predictor, cases, out)  # repaired
    assert all("error" not in record for record in records.values())


def test_a_stale_label_map_of_a_failed_case_is_removed(predictor, cases, tmp_path):
    predict_cases(predictor, cases[:1], tmp_path)
    missing = cases[0].model_copy(update={"images": (tmp_path / "gone.nii.gz",)})
    predict_cases(predictor, [missing], tmp_path, overwrite=True)
    assert not done_at(tmp_path)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't allocate memory: 9 bytes")]
)
def test_a_case_too_large_for_the_memory_is_set_aside(
    predictor, cases, tmp_path, monkeypatch, error
):
    real = Predictor.begin

    def begin(self, case):
        if case.name == cases[0].name:
            raise error
        return real(self, case)

    monkeypatch.setattr(Predictor, "begin", begin)
    records = predict_cases(predictor, cases, tmp_path)
    assert "memory" in records[cases[0].name]["error"]
    assert len(done_at(tmp_path)) == 2


def test_a_full_disk_ends_the_work_and_keeps_what_is_done(
    predictor, cases, tmp_path, monkeypatch
):
    real = writing.write_volume

    def write(path, volume):
        if cases[1].name in path.name:
            raise ResourceError(f"{path}: No space left on device")
        real(path, volume)

    monkeypatch.setattr(writing, "write_volume", write)
    with pytest.raises(ResourceError, match="No space"):
        predict_cases(predictor, cases, tmp_path)
    assert list(json.loads((tmp_path / "predictions.json").read_text())["cases"]) == [
        cases[0].name
    ]
    assert list(done_at(tmp_path)) == [f"{cases[0].name}.nii.gz"]


CHILD = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from trivox.datasets.layouts.choice import load_inputs
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
predictor = Predictor.load(sys.argv[1], device="cpu", precision="fp32")
cases = load_inputs(Path(sys.argv[2]), channels=predictor.channels)
def wait(items, total):
    for number, case in enumerate(items):
        if number == 2:
            time.sleep(600)
        yield case
predict_cases(predictor, cases, Path(sys.argv[3]), progress=wait)
"""


def test_a_killed_prediction_resumes_with_nothing_half_written(
    predictor, tiny_run, tiny_data, tmp_path
):
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tiny_run), str(tiny_data), str(out)]
    )
    while not done_at(out) and child.poll() is None:
        time.sleep(0.02)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    early = done_at(out)
    assert 0 < len(early) < 6
    for name in early:
        read_labels(out / name)
    recorded = json.loads((out / "predictions.json").read_text())["cases"]
    records = predict_cases(
        predictor, load_inputs(tiny_data, channels=predictor.channels), out
    )
    assert len(records) == 6
    assert all((out / record["output"]).exists() for record in records.values())
    late = done_at(out)
    for record in recorded.values():
        assert late[record["output"]] == early[record["output"]]


# -- both kinds of models --------------------------------------------------------------
@pytest.fixture(scope="module")
def reconstructor(xray_run):
    return Reconstructor.load(xray_run, device="cpu", precision="fp32")


def test_exams_become_volumes_with_what_else_is_written_about_them(
    reconstructor, xray_data, tmp_path
):
    exams = load_dataset(xray_data).cases[:2]

    def also(case, result):
        return {"deepest": int(result.volume.array.min())}

    records = predict_cases(reconstructor, exams, tmp_path, also=also)
    for exam in exams:
        record = records[exam.name]
        assert list(record) == [
            "inputs",
            "sources",
            "output",
            "views",
            "warnings",
            "deepest",
            "written",
            "seconds",
        ]
        assert record["inputs"] == [str(exam.images[0]), str(exam.geometry)]
        volume = read_volume(tmp_path / record["output"])
        assert record["deepest"] == volume.array.min()


def test_folders_of_0_1_0_are_gone_on_with(
    predictor, cases, reconstructor, xray_data, tmp_path
):
    """What that version wrote about a model, and about a case."""
    labels = {"model": predictor.identity, "settings": predictor.settings}
    volumes = {
        "model": reconstructor.identity,
        "task": "reconstruction",
        "notice": "synthetic CT, not acquired",
    }
    exams = load_dataset(xray_data).cases[:1]
    for model, given, content in (
        (predictor, cases[:1], labels),
        (reconstructor, exams, volumes),
    ):
        out = tmp_path / next(iter(given)).name
        (case,) = given
        inputs = [*case.images, case.geometry] if case.geometry else case.images
        record = {
            "inputs": [str(path) for path in inputs],
            "output": f"{case.name}.nii.gz",
            "warnings": ["kept as it was"],
            "seconds": 1.5,
        }
        out.mkdir()
        (out / record["output"]).write_bytes(b"a map")
        written = {**content, "cases": {case.name: record}}
        (out / "predictions.json").write_text(json.dumps(written))
        assert predict_cases(model, given, out) == {case.name: record}
        owners = {"files": {record["output"]: case.name}}
        now = json.loads((out / "predictions.json").read_text())
        assert now.items() >= (written | owners).items()
        assert (out / record["output"]).read_bytes() == b"a map"


def test_what_a_reader_has_to_say_stands_in_the_record(predictor, cases, tmp_path):
    source = nibabel.load(cases[0].images[0])
    header = source.header.copy()
    header.set_qform(np.diag([9.0, 9, 9, 1]), code=1)
    header.set_sform(source.affine, code=1)
    array = np.asarray(source.dataobj)
    file = tmp_path / "odd.nii.gz"
    nibabel.save(nibabel.Nifti1Image(array, None, header), file)
    case = cases[0].model_copy(update={"name": "odd", "images": (file,)})
    records = predict_cases(predictor, [case, cases[1]], tmp_path / "out")
    (remark,) = records["odd"]["warnings"]
    assert remark.startswith("sform and qform disagree: spacing")
    assert records[cases[1].name]["warnings"] == []
    written = nibabel.load(tmp_path / "out" / "odd.nii.gz")
    np.testing.assert_array_equal(written.affine, source.affine)


def test_a_scan_in_micron_is_predicted_in_mm_and_written_in_micron(
    predictor, cases, tmp_path
):
    source = nibabel.load(cases[0].images[0])
    header = source.header.copy()
    affine = np.diag([1e3, 1e3, 1e3, 1]) @ source.affine
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header["xyzt_units"] = 3
    file = tmp_path / "micron.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.asarray(source.dataobj), None, header), file)
    case = cases[0].model_copy(update={"name": "micron", "images": (file,)})
    records = predict_cases(predictor, [case, cases[0]], tmp_path / "out")
    for name, volumes in records["micron"]["volumes"].items():
        expected = records[cases[0].name]["volumes"][name]["volume_ml"]
        assert volumes["volume_ml"] == pytest.approx(expected)
    written = nibabel.load(tmp_path / "out" / "micron.nii.gz")
    np.testing.assert_array_equal(written.affine, nibabel.load(file).affine)
    assert written.header["xyzt_units"] == 3
