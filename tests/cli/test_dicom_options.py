"""`--series` and `--slice-tolerance`, wherever images are read."""

import inspect
import json
import shutil

import numpy as np
import pytest

import trivox as package
from dicom_slices import save, slice_of
from trivox.datasets.content import content_of, is_made_of
from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.volumes.choice import SeriesChoice
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

READING = ("check", "plan", "preprocess", "train", "pretrain", "drr", "predict")
PLANE = (24, 20)


def series(folder, number, heights):
    slices = []
    for index, height in enumerate(heights):
        pixels = np.random.default_rng(index).integers(0, 900, PLANE).astype(np.uint16)
        dataset = slice_of(
            index, series=f"1.{number}", position=(0, 0, height), pixels=pixels
        )
        dataset.SeriesNumber = number
        slices.append(dataset)
    save(folder, slices, name=f"s{number}_")


@pytest.fixture
def study(tmp_path):
    """An even series of 10 slices, and an uneven one of 12."""
    series(tmp_path / "study", 2, np.arange(10) * 2.0)
    series(tmp_path / "study", 3, np.arange(12) * 2.0 + 0.1 * (np.arange(12) == 5))
    return tmp_path / "study"


@pytest.mark.parametrize("verb", [*READING, "explain"])
def test_every_verb_that_reads_images_has_both_options(verb):
    options = inspect.signature(getattr(package, verb)).parameters
    assert {"series", "slice_tolerance"} <= set(options)


def test_predict_takes_the_series_that_is_meant(trivox, tiny_run, study, tmp_path):
    out = tmp_path / "out"
    command = ("predict", tiny_run, study, "--out", out, "--device", "cpu")
    code, text = trivox(*command)
    assert code == 1
    assert "2 series in this folder; choose one with --series NUMBER" in text
    assert trivox(*command, "--series", "2")[0] == 0
    assert read_volume(out / "study.nii.gz").shape == (10, *PLANE)
    code, text = trivox(*command, "--series", "largest")
    assert code == 1
    assert "--slice-tolerance 0.10 reads them as even" in text
    assert trivox(*command, "--series", "largest", "--slice-tolerance", "0.1")[0] == 0
    assert read_volume(out / "study.nii.gz").shape == (12, *PLANE)
    record = json.loads((out / "predictions.json").read_text())["cases"]["study"]
    assert any(warning.startswith("series: largest") for warning in record["warnings"])


def test_a_dataset_is_checked_and_planned_by_the_series_that_is_meant(
    trivox, study, tmp_path
):
    data = tmp_path / "data"
    for number in range(5):
        shutil.copytree(study, data / "images" / f"case{number}")
        label = np.zeros((1, 10, *PLANE), np.uint8)
        label[0, 2:5, 5:9, 6:9] = 1
        image = read_volume(study, choice=SeriesChoice(series="2"))
        write_volume(
            data / "labels" / f"case{number}.nii.gz", Volume(label, image.affine)
        )
    code, text = trivox("check", data)
    assert code == 1
    assert "choose one with --series" in text
    code, text = trivox("check", data, "--series", "2")
    assert "cannot be read" not in text
    assert trivox("plan", data, "--out", "p.json", "--series", "2")[0] == 0
    assert trivox("plan", data, "--out", "q.json")[0] == 1


def test_another_series_is_another_content(study):
    (case,) = load_inputs(study, channels=("image",))
    as_second = case.read_by(SeriesChoice(series="2"))
    content = content_of(as_second, None)
    assert is_made_of(as_second, None, content)
    assert not is_made_of(case, None, content)
    assert not is_made_of(case.read_by(SeriesChoice(series="3")), None, content)
    assert as_second.read_by(SeriesChoice()) == as_second


def test_a_ct_is_rendered_from_the_series_that_is_meant(trivox, tmp_path):
    series(tmp_path / "ct", 2, np.arange(10) * 2.0)
    series(tmp_path / "ct", 3, np.arange(12) * 2.0)
    command = ("drr", "ct", "--out", "x", "--detector", "8", "--pixel", "60")
    code, text = trivox(*command)
    assert (code, "choose one with --series" in text) == (1, True)
    assert trivox(*command, "--series", "axial,largest")[0] == 0


@pytest.mark.parametrize("value", ["-1", "nan", "inf"])
def test_a_tolerance_is_a_distance(trivox, study, value):
    code, text = trivox("check", study, f"--slice-tolerance={value}")
    assert code == 2
    assert "--slice-tolerance" in text


def test_saved_datasets_keep_their_choice(tiny_data):
    dataset = load_dataset(tiny_data)
    chosen = dataset.read_by(SeriesChoice(series="largest"))
    again = type(dataset).model_validate(chosen.model_dump(mode="json"))
    assert again == chosen
    assert {case.choice.series for case in again.cases} == {"largest"}
