"""Cases that would take more memory than there is are refused before they take it."""

import json
import shutil

import numpy as np
import pytest

from trivox import memory
from trivox.cli import main
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError
from trivox.files import read_json
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.planning.plan import read_plan
from trivox.preparation.preprocess import preprocess
from trivox.verbs.check import check
from trivox.verbs.plan import plan
from trivox.volumes.formats import read_volume, write_volume


@pytest.fixture
def data(tiny_data, tmp_path):
    """A dataset of which one image says that its voxels are hundreds of times longer."""
    folder = shutil.copytree(tiny_data, tmp_path / "data")
    case = load_dataset(folder).training_cases[0]
    for file in (*case.images, case.label):
        volume = read_volume(file)
        affine = volume.affine.copy()
        affine[:3, :3] *= 250
        write_volume(file, type(volume)(volume.array, affine))
    return folder


def test_a_plan_warns_of_a_case_that_becomes_huge(data, tmp_path):
    made = plan(data, tmp_path / "plan.json", device="cpu")
    huge = load_dataset(data).training_cases[0].name
    assert any(
        line.startswith(f"{huge} becomes ") and "GB are available" in line
        for line in made.warnings
    )
    assert read_json(tmp_path / "plan.json")["warnings"] == list(made.warnings)


def test_preparation_refuses_it_in_one_line_and_does_the_others(data, tmp_path):
    plan(data, tmp_path / "plan.json", device="cpu")
    dataset = load_dataset(data)
    with pytest.raises(DataError, match=r"1 of 5 cases failed: .* GB") as raised:
        preprocess(dataset, read_plan(tmp_path / "plan.json"), tmp_path / "store")
    assert dataset.training_cases[0].name in str(raised.value)
    assert "correct the voxel size" in str(raised.value)
    assert len(list((tmp_path / "store").glob("*.json"))) == 5  # four and the key


def test_prediction_sets_it_aside_and_does_the_others(data, tiny_run, tmp_path):
    predictor = Predictor.load(tiny_run, device="cpu", precision="fp32")
    cases = load_dataset(data).training_cases[:2]
    records = predict_cases(predictor, cases, tmp_path / "out")
    assert "GB are available" in records[cases[0].name]["error"]
    assert "error" not in records[cases[1].name]


def test_a_patch_beyond_memory_is_refused_at_prediction(tiny_run, tmp_path):
    bundle = shutil.copytree(tiny_run / "bundle", tmp_path / "bundle")
    content = read_json(bundle / "bundle.json")
    content["plan"]["patch_size"] = [16384, 16384, 16384]
    (bundle / "bundle.json").write_text(json.dumps(content))
    predictor = Predictor.load(bundle, device="cpu", precision="fp32")
    image = np.random.default_rng(0).normal(size=(9, 9, 9)).astype(np.float32)
    with pytest.raises(DataError, match="GB are available"):
        predictor.predict_array(image, (1.0, 1.0, 1.0))


def test_training_refuses_a_patch_beyond_memory_in_one_line(
    tiny_data, tmp_path, capsys, monkeypatch
):
    arguments = ["train", str(tiny_data), "--out", str(tmp_path / "run")]
    arguments += ["--patch-size", "4096", "4096", "4096", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["trivox", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    said = capsys.readouterr().err.strip()
    assert "GB are available" in said
    assert "\n" not in said


def test_labels_that_a_plan_would_lose_are_said_by_plan_and_check(tmp_path):
    from trivox.datasets.phantoms.ellipsoids import PhantomSettings, write_phantoms

    phantoms = PhantomSettings(
        cases=5, shape=(16, 20, 18), spacing=(1.0, 1.0, 1.0), spacing_variation=0.0
    )
    folder = write_phantoms(tmp_path / "data", phantoms)
    dataset = load_dataset(folder)
    for number, case in enumerate(dataset.training_cases):
        label = read_volume(case.label)
        image = read_volume(case.images[0])
        factor = 1.0 if number else 0.25
        array = label.array.copy()
        if not number:
            array[:] = array == 99
            array[0, 5, 6, 6] = max(dataset.labels.labels.values())
        affine = label.affine.copy()
        affine[:3, :3] *= factor
        write_volume(case.label, type(label)(array, affine))
        write_volume(case.images[0], type(image)(image.array, affine))
    first = dataset.training_cases[0].name
    made = plan(folder, tmp_path / "plan.json", device="cpu")
    assert any(
        f"is lost in 1 of 5 cases at 1 x 1 x 1 mm ({first})" in w for w in made.warnings
    )
    assert any(what == "resampling" for what, _, _ in made.decisions)
    found = [f for f in check(folder).report.findings if f.code == "lost-label"]
    assert any(first in finding.message for finding in found)


def test_bytes_as_people_say_them():
    assert memory.gigabytes(190.4e9) == "190 GB"
    assert memory.gigabytes(0.35e9) == "0.35 GB"
