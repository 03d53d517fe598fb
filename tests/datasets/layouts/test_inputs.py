"""What to predict on: files, folders of them, and datasets in any layout."""

from pathlib import Path

import pytest

from layout_copies import LAYOUT_WRITERS
from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.errors import DataError, FormatError


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
