"""What archives export of a patient is one case, however deep it lies."""

import numpy as np
import pytest

from dicom_slices import save, slice_of
from trivox.datasets.dicom_folders import holds_dicom, is_dicom_folder
from trivox.datasets.layouts.choice import load_dataset, load_inputs
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

SLICES = [slice_of(i) for i in range(3)]


def export(folder, suffix=""):
    """Files as archives name them."""
    save(folder, SLICES, name="IM")
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(path.stem + suffix))
    return folder


@pytest.mark.parametrize("below", ["", "SERIES", "STUDY/SERIES", "PA0/ST0/SE0/raw"])
@pytest.mark.parametrize("suffix", ["", ".IMA", ".dcm"])
def test_patients_are_cases_whatever_lies_between(tmp_path, below, suffix):
    for name in ("anna", "bert"):
        export(tmp_path / name / below, suffix)
        (tmp_path / name / "README.txt").write_text("exported")
    cases = load_inputs(tmp_path, channels=("image",))
    assert [case.name for case in cases] == ["anna", "bert"]
    for case in cases:
        assert read_volume(case.images[0]).shape[0] == 3


def test_images_of_a_dataset_may_be_nested_exports(tmp_path):
    for name in ("anna", "bert"):
        export(tmp_path / "images" / name / "STUDY" / "SERIES")
        image = read_volume(tmp_path / "images" / name)
        label = np.ones(image.array.shape, np.uint8)
        (tmp_path / "labels").mkdir(exist_ok=True)
        write_volume(
            tmp_path / "labels" / f"{name}.nii.gz", Volume(label, image.affine)
        )
    dataset = load_dataset(tmp_path)
    assert [case.name for case in dataset.training_cases] == ["anna", "bert"]
    cases = load_inputs(tmp_path / "images", channels=("image",))
    assert [case.name for case in cases] == ["anna", "bert"]


def test_a_single_file_without_a_suffix_is_its_series(tmp_path):
    export(tmp_path / "SE0")
    (case,) = load_inputs(tmp_path / "SE0" / "IM000", channels=("image",))
    assert read_volume(case.images[0]).shape[0] == 3


def test_folders_with_images_of_other_formats_are_no_series(tmp_path):
    export(tmp_path / "a" / "SERIES")
    write_volume(tmp_path / "a" / "b.nii", Volume(np.zeros((1, 2, 2, 2)), np.eye(4)))
    assert not holds_dicom(tmp_path / "a")
    assert not is_dicom_folder(tmp_path / "a")
    assert is_dicom_folder(tmp_path / "a" / "SERIES")


def test_previews_beside_slices_do_not_hide_them(tmp_path):
    export(tmp_path / "a")
    for name in ("0.png", "00.txt", "000.jpg", "0.xml", "1.html", "2.pdf"):
        (tmp_path / "a" / name).write_bytes(b"\x89PNG")
    assert is_dicom_folder(tmp_path / "a")
    assert read_volume(tmp_path / "a").shape[0] == 3
