"""What to predict on: files, folders of them, and datasets in any layout."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from layout_copies import LAYOUT_WRITERS, as_folders
from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.errors import DataError, FormatError, LabelError
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing


def touch(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(bytes(128) + b"DICM")
    return folder


@pytest.mark.parametrize(
    ("files", "channels", "expected"),
    [
        (["a.nii.gz", "b.nrrd"], ["CT"], {"a": 1, "b": 1}),
        (["a_0000.nii.gz", "b_0000.nii.gz"], ["CT"], {"a": 1, "b": 1}),
        (["p_0000.nii.gz", "p_0001.nii.gz"], ["CT"], {"p_0000": 1, "p_0001": 1}),
        (["p_0000.nii.gz", "p_0001.nii.gz"], ["T1", "T2"], {"p": 2}),
        (["p_0007.nii.gz", "p_0008.nii.gz"], ["T1", "T2"], {"p_0007": 1, "p_0008": 1}),
        (["a.nii.gz", "._a.nii.gz", "notes.txt"], ["T1", "T2"], {"a": 1}),
    ],
)
def test_inputs_from_a_folder_of_images(tmp_path, files, channels, expected):
    cases = load_inputs(touch(tmp_path / "in", *files), channels=channels)
    assert {case.name: len(case.images) for case in cases} == expected


def test_inputs_from_one_file(tmp_path):
    folder = touch(tmp_path / "in", "a_0000.nii.gz", "a_0001.nii.gz", "b.mha")
    (single,) = load_inputs(folder / "b.mha", channels=["CT"])
    assert (single.name, single.images) == ("b", (folder / "b.mha",))
    (first,) = load_inputs(folder / "a_0000.nii.gz", channels=["T1", "T2"])
    assert (first.name, len(first.images)) == ("a", 2)
    (other,) = load_inputs(folder / "a_0001.nii.gz", channels=["CT"])
    assert other.name == "a_0001"


def test_inputs_from_dicom_folders(tmp_path):
    touch(tmp_path / "1.2.840", "slice1", "slice2")
    (case,) = load_inputs(tmp_path / "1.2.840", channels=["CT"])
    assert (case.name, case.images) == ("1.2.840", (tmp_path / "1.2.840",))
    touch(tmp_path / "other", "a.dcm")
    assert [case.name for case in load_inputs(tmp_path, channels=["CT"])] == [
        "1.2.840",
        "other",
    ]


@pytest.mark.parametrize("layout", LAYOUT_WRITERS)
def test_inputs_from_a_dataset_are_all_its_cases(phantoms, tmp_path, layout):
    folder = LAYOUT_WRITERS[layout](phantoms, tmp_path / "copy")
    assert load_inputs(folder, channels=["a", "b"]) == load_dataset(folder).cases


def test_inputs_that_do_not_fit(tmp_path, phantoms):
    with pytest.raises(FormatError, match="not found"):
        load_inputs(tmp_path / "nowhere", channels=["CT"])
    with pytest.raises(FormatError, match="no image"):
        load_inputs(touch(tmp_path / "empty"), channels=["CT"])
    with pytest.raises(DataError, match="2 image files, the model reads"):
        load_inputs(phantoms, channels=["a", "b", "c"])
    folder = touch(tmp_path / "in", "a_0000.nii.gz")
    (case,) = load_inputs(folder, channels=["T1", "T2"])
    assert (case.name, len(case.images), case.absent) == ("a", 1, (1,))


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["a.xyz", "b.XYZ"],
            r"holds 2 files \(a\.xyz\.\.\.\) that end in \.xyz, which is",
        ),
        (["notes.txt"], r"that end in \.txt, which is not read; convert .*\.nii\.gz"),
        (["p1/a.nii.gz", "p2/a.nii.gz"], "holds no image but the folders p1, p2; give"),
        ([], "holds no image"),
    ],
)
def test_a_folder_without_images_says_what_it_holds(tmp_path, names, said):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"x")
    with pytest.raises(FormatError, match=said):
        load_inputs(folder, channels=["CT"])
    if names == ["a.xyz", "b.XYZ"]:
        shutil.copytree(folder, tmp_path / "data" / "images")
        touch(tmp_path / "data" / "labels", "a.nii.gz")
        with pytest.raises(FormatError, match=f"images/ {said}"):
            load_dataset(tmp_path / "data")


def test_names_that_do_not_pair_say_how_to_call_them(tmp_path):
    touch(tmp_path / "images", "left.nii.gz")
    touch(tmp_path / "labels", "right.nii.gz")
    with pytest.raises(FormatError, match=r"left and right.*CASE_0000\.nii\.gz"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("mark", ["_", "-", "."])
@pytest.mark.parametrize("word", ["seg", "Label", "mask", "segmentation"])
def test_label_maps_may_say_what_they_are(phantoms, tmp_path, mark, word):
    folder = as_folders(phantoms, tmp_path / "copy")
    for file in (folder / "labelsTr").iterdir():
        name = file.name.removesuffix(".nii.gz")
        file.rename(file.with_name(f"{name}{mark}{word}.nii.gz"))
    assert len(load_dataset(folder).training_cases) == 3


def test_label_maps_that_cannot_be_read_say_why(tmp_path):
    affine = affine_from_spacing((1, 1, 1))
    layers = np.ones((2, 3, 3, 3), np.uint8)
    write_volume(tmp_path / "images" / "a.nrrd", Volume(layers[:1], affine))
    write_volume(tmp_path / "labels" / "a.seg.nrrd", Volume(layers, affine))
    with pytest.raises(
        LabelError, match=r"1 of 1 .*Overlapping segments must be merged"
    ):
        load_dataset(tmp_path)
    huge = np.full((1, 3, 3, 3), 2.0**40, np.float32)
    write_volume(tmp_path / "labels" / "a.seg.nrrd", Volume(huge, affine))
    with pytest.raises(LabelError, match=r"whole numbers \(32 bit\).*1.09951e\+12"):
        load_dataset(tmp_path)
