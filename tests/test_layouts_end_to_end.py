"""Three cases in each layout and file format: a few training steps, a bundle, a
prediction.
"""

import csv
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from trivox.datasets.layouts.choice import load_inputs
from trivox.datasets.phantoms.ellipsoids import (
    PhantomSettings,
    phantom_case,
    write_phantoms,
)
from trivox.files import read_json
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import read_labels, write_volume
from trivox.volumes.volume import Volume

SHAPE = (12, 16, 14)
CASES = [f"case_{i}" for i in range(3)]
STEPS = {"epochs": 1, "iterations_per_epoch": 2, "patch_size": [8, 8, 8]}


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    """Figures take longer than these trainings, and other tests look at them."""
    monkeypatch.setattr(
        "trivox.tasks.labels.segmentation.report_run", lambda *args, **kwargs: None
    )


def settings(**changes):
    return PhantomSettings(
        **{"cases": 3, "shape": SHAPE, "spacing": (2.0, 1.5, 1.5), **changes}
    )


def cases(**changes):
    chosen = settings(**changes)
    return {name: phantom_case(chosen, i) for i, name in enumerate(CASES)}


def end_to_end(dataset, inputs, tmp_path, tiny_settings, *, values=(1, 2), **changes):
    run = tmp_path / "run"
    out = tmp_path / "out"
    metrics = run_request(
        RunRequest(dataset, run, "quick_test", {**tiny_settings, **STEPS, **changes})
    )
    assert metrics["cases"]
    predictor = Predictor.load(run / "bundle", device="cpu")
    to_predict = load_inputs(inputs, channels=predictor.channels)
    records = predict_cases(predictor, to_predict, out)
    assert records
    assert not [record["error"] for record in records.values() if "error" in record]
    for record in records.values():
        labels = read_labels(out / record["output"])
        assert set(np.unique(labels.array)) <= {0, *values}
        assert labels.shape == SHAPE
    return predictor


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha", ".npz", ".h5"])
def test_manifest_json_in_each_format(tmp_path, tiny_settings, suffix):
    data = write_phantoms(
        tmp_path / "data", settings(suffix=suffix, channels=2, label_values=(7, 300))
    )
    predictor = end_to_end(data, data, tmp_path, tiny_settings, values=(7, 300))
    assert predictor.channels == ("contrast_0", "contrast_1")


def test_npy_has_no_grid_and_counts_in_voxels(tmp_path, tiny_settings):
    for name, (image, label) in cases().items():
        for folder, volume in (("images", image), ("labels", label)):
            (tmp_path / "data" / folder).mkdir(parents=True, exist_ok=True)
            np.save(tmp_path / "data" / folder / f"{name}.npy", volume.array[0])
    predictor = end_to_end(
        tmp_path / "data", tmp_path / "data" / "images", tmp_path, tiny_settings
    )
    assert predictor.members[0].plan.spacing == (1.0, 1.0, 1.0)


def test_manifest_csv(tmp_path, tiny_settings):
    data = tmp_path / "data"
    write_phantoms(data / "raw", settings())
    entries = json.loads((data / "raw" / "manifest.json").read_text())["cases"]
    (data / "raw" / "manifest.json").unlink()
    with (data / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "image", "label"])
        rows.writerows(
            [e["case"], f"raw/{e['images'][0]}", f"raw/{e['label']}"] for e in entries
        )
    end_to_end(data / "manifest.csv", data / "raw" / "images", tmp_path, tiny_settings)


def test_medical_segmentation_decathlon(tmp_path, tiny_settings):
    data = tmp_path / "data"
    for name, (image, label) in cases(channels=2).items():
        # one file holds both channels
        write_volume(data / "imagesTr" / f"{name}.nii.gz", image)
        write_volume(data / "labelsTr" / f"{name}.nii.gz", label)
    content = {
        "modality": {"0": "T1", "1": "T2"},
        "labels": {"0": "background", "1": "organ", "2": "lesion"},
        "training": [
            {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
            for n in CASES
        ],
        "test": [],
    }
    (data / "dataset.json").write_text(json.dumps(content))
    predictor = end_to_end(data, data / "imagesTr", tmp_path, tiny_settings)
    assert predictor.channels == ("T1", "T2")


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore"])
def test_nnunet_raw(tmp_path, tiny_settings, kind):
    data = tmp_path / "data"
    for name, (image, label) in cases(channels=2).items():
        for i, channel in enumerate(image.array):
            write_volume(
                data / "imagesTr" / f"{name}_{i:04d}.nii.gz", image.with_array(channel)
            )
        array = label.array.copy()
        if kind == "ignore":
            array[:, : SHAPE[0] // 2] = 3
        write_volume(data / "labelsTr" / f"{name}.nii.gz", label.with_array(array))
    labels = {"background": 0, "organ": 1, "lesion": 2}
    content = {
        "channel_names": {"0": "CT", "1": "PET"},
        "file_ending": ".nii.gz",
        "labels": labels,
        "numTraining": 3,
    }
    if kind == "regions":
        content |= {
            "labels": {"background": 0, "whole": [1, 2], "lesion": [2]},
            "regions_class_order": [1, 2],
        }
    if kind == "ignore":
        content["labels"] = {**labels, "ignore": 3}
    (data / "dataset.json").write_text(json.dumps(content))
    predictor = end_to_end(data, data / "imagesTr", tmp_path, tiny_settings)
    assert predictor.members[0].plan.normalisations[0].scheme == "ct"
    assert predictor.labels.exclusive is (kind != "regions")
    metrics = json.loads((tmp_path / "run" / "validation" / "metrics.json").read_text())
    assert set(metrics["summary"]) - {"mean"} == {
        "whole" if kind == "regions" else "organ",
        "lesion",
    }


@pytest.mark.parametrize("label_suffix", ["", "_seg"])
def test_plain_folders(tmp_path, tiny_settings, label_suffix):
    data = tmp_path / "data"
    for name, (image, label) in cases().items():
        write_volume(data / "images" / f"{name}.nii.gz", image)
        write_volume(data / "labels" / f"{name}{label_suffix}.nii.gz", label)
    end_to_end(data, data / "images" / f"{CASES[0]}.nii.gz", tmp_path, tiny_settings)
    assert (tmp_path / "out" / f"{CASES[0]}.nii.gz").exists()


def write_series(volume, folder):
    """A minimal CT series, slice by slice, as scanners write them."""
    folder.mkdir(parents=True)
    uid = f"1.2.826.0.1.3680043.2.1125.{CASES.index(folder.name) + 1}"
    z, y, x = volume.spacing
    origin = np.diag([-1, -1, 1, 1]) @ volume.affine
    for index, plane in enumerate(volume.array[0]):
        image = sitk.GetImageFromArray(plane[None].astype(np.int16))
        image.SetSpacing((x, y, z))
        position = [origin[0, 3], origin[1, 3], origin[2, 3] + index * z]
        tags = {
            "0008|0060": "CT",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0020|000d": uid,
            "0020|000e": uid + ".1",
            "0020|0052": uid + ".2",
            "0020|0013": str(index + 1),
            "0010|0020": folder.name,
            "0020|0032": "\\".join(f"{v:.5f}" for v in position),
            "0020|0037": "-1\\0\\0\\0\\-1\\0",
            "0018|0050": f"{z:.5f}",
            "0028|1052": "0",
            "0028|1053": "1",
        }
        for key, value in tags.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{index:03d}.dcm"))
        writer.Execute(image)


def test_dicom_series_as_images(tmp_path, tiny_settings):
    data = tmp_path / "data"
    for name, (image, label) in cases().items():
        rounded = [round(s, 4) for s in image.spacing]
        affine = np.diag([rounded[2], rounded[1], rounded[0], 1.0])
        write_series(Volume(image.array, affine), data / "images" / name)
        write_volume(data / "labels" / f"{name}.nii.gz", Volume(label.array, affine))
    end_to_end(data, data / "images" / CASES[1], tmp_path, tiny_settings)


def test_two_dimensional_training(tmp_path, tiny_settings):
    data = write_phantoms(tmp_path / "data", settings())
    predictor = end_to_end(data, data, tmp_path, tiny_settings, patch_size=[16, 8])
    plan = predictor.members[0].plan
    assert (plan.dimension, plan.patch_size[0]) == (2, 1)


def test_one_spoiled_case_stops_neither_a_training_nor_a_prediction(
    tmp_path, tiny_settings
):
    data = write_phantoms(tmp_path / "data", settings(cases=4))
    spoiled = read_json(data / "manifest.json")["cases"][1]
    image = data / spoiled["images"][0]
    image.write_bytes(image.read_bytes()[:99])
    lines = []
    console = SimpleNamespace(say=lines.append, track=lambda items, *_, **__: items)
    request = RunRequest(
        data, tmp_path / "run", "quick_test", {**tiny_settings, **STEPS}
    )
    run_request(request, console=console)
    name = spoiled["case"]
    assert [line for line in lines if line.startswith(f"{name}: set aside: ")]
    folds = read_json(tmp_path / "run" / "splits.json")
    assert {len(fold["train"] + fold["validation"]) for fold in folds} == {3}
    assert name not in str(folds)
    run_request(replace(request, resume=True), console=console)
    predictor = Predictor.load(tmp_path / "run" / "bundle", device="cpu")
    inputs = load_inputs(data, channels=predictor.channels)
    records = predict_cases(predictor, inputs, tmp_path / "out")
    assert [case for case in records if "error" in records[case]] == [name]


def test_a_moved_bundle_needs_nothing_else(tmp_path, tiny_settings):
    data = write_phantoms(tmp_path / "data", settings())
    end_to_end(data, data, tmp_path, tiny_settings)
    moved = shutil.move(tmp_path / "run" / "bundle", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "run")
    image, _ = phantom_case(settings(), 9)
    assert (
        Predictor.load(moved, device="cpu").predict_volume(image).labels.shape == SHAPE
    )
