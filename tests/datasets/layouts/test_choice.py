"""Finding out how a dataset is laid out: every layout holds the same cases."""

import json

import numpy as np
import pytest

from layout_copies import LAYOUT_WRITERS, NAMES, as_nnunet
from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import (
    LAYOUTS,
    load_dataset,
    read_saved_dataset,
    save_dataset,
    unpaired_files,
)
from trivox.datasets.phantoms.ellipsoids import (
    PhantomSettings,
    phantom_case,
    write_phantoms,
)
from trivox.errors import FormatError, LabelError
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing


def voxels(*files) -> bytes:
    return b"".join(read_volume(file).array.tobytes() for file in files)


def contents(dataset: Dataset) -> dict:
    """What a dataset holds, however it is laid out: split and voxels by case."""
    result = {}
    for case in dataset.cases:
        learnt = case.label and case.split == "train"
        label = voxels(case.label) if learnt else None
        result[case.name] = (case.split, voxels(*case.images), label)
    return result


@pytest.mark.parametrize("layout", LAYOUT_WRITERS)
def test_every_layout_gives_the_same_cases(phantoms, tmp_path, layout):
    original = load_dataset(phantoms)
    copy = load_dataset(LAYOUT_WRITERS[layout](phantoms, tmp_path / "copy"))
    assert copy.layout == layout
    assert layout in LAYOUTS
    assert copy.task is None
    assert not copy.holds_exams
    assert contents(copy) == contents(original)
    assert [case.patient for case in copy.cases] == NAMES
    assert sorted(copy.labels.labels.values()) == [1, 2, 3]
    if layout not in ("folders", "manifest"):  # these find the label values by reading
        assert copy.labels == original.labels
    if layout != "folders":
        assert copy.channels == original.channels
    assert unpaired_files(copy) == ((), ())
    assert len(copy.channels) == 2
    for case in copy.cases:
        assert all(image.is_absolute() for image in case.images)


@pytest.mark.parametrize("layout", LAYOUT_WRITERS)
def test_the_description_file_can_be_given_directly(phantoms, tmp_path, layout):
    folder = LAYOUT_WRITERS[layout](phantoms, tmp_path / "copy")
    for file in [*folder.glob("*.json"), *folder.glob("*.csv")]:
        assert load_dataset(file) == load_dataset(folder)


@pytest.mark.parametrize("layout", LAYOUT_WRITERS)
def test_saved_dataset_round_trips(phantoms, tmp_path, layout):
    dataset = load_dataset(LAYOUT_WRITERS[layout](phantoms, tmp_path / "copy"))
    save_dataset(dataset, tmp_path / "run" / "dataset.json")
    assert read_saved_dataset(tmp_path / "run" / "dataset.json") == dataset
    assert load_dataset(tmp_path / "run" / "dataset.json") == dataset


def test_a_saved_dataset_keeps_its_task(phantoms, tmp_path):
    dataset = load_dataset(phantoms).model_copy(update={"task": "multitask"})
    save_dataset(dataset, tmp_path / "dataset.json")
    assert read_saved_dataset(tmp_path / "dataset.json").task == "multitask"


def test_read_saved_dataset_names_the_file(tmp_path):
    (tmp_path / "d.json").write_text('{"name": "x"}')
    with pytest.raises(FormatError, match=r"d\.json: root: "):
        read_saved_dataset(tmp_path / "d.json")


def test_every_suffix_loads(tmp_path):
    for suffix in (".nii", ".nrrd", ".mha", ".npz", ".h5"):
        folder = write_phantoms(
            tmp_path / suffix[1:],
            PhantomSettings(cases=2, shape=(8, 8, 8), suffix=suffix),
        )
        (folder / "manifest.json").unlink()
        dataset = load_dataset(folder)
        assert [case.name for case in dataset.cases] == NAMES[:2]
        assert dataset.channels == ("image",)


def test_odd_label_values_are_found(tmp_path):
    folder = write_phantoms(
        tmp_path / "p",
        PhantomSettings(cases=2, shape=(16, 16, 16), label_values=(300, 7)),
    )
    assert load_dataset(folder).labels.labels == {"organ": 300, "lesion": 7}
    (folder / "manifest.json").unlink()
    assert load_dataset(folder).labels.labels == {"label_7": 7, "label_300": 300}


def test_nnunet_regions_and_ignore(phantoms, tmp_path):
    folder = as_nnunet(phantoms, tmp_path / "copy")
    content = json.loads((folder / "dataset.json").read_text())
    content["labels"] = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    content["regions_class_order"] = [1, 2]
    (folder / "dataset.json").write_text(json.dumps(content))
    labels = load_dataset(folder).labels
    assert labels.regions == {"whole": (1, 2), "core": (2,)}
    assert labels.labels == {"label_1": 1, "core": 2}
    assert (labels.region_order, labels.ignore, labels.exclusive) == ((1, 2), 3, False)


def test_nnunet_says_which_channel_is_missing(phantoms, tmp_path):
    folder = as_nnunet(phantoms, tmp_path / "copy")
    (folder / "imagesTr" / f"{NAMES[0]}_0001.nii.gz").unlink()
    first, second, *_ = load_dataset(folder).cases
    assert (len(first.images), first.absent) == (1, (1,))
    assert (len(second.images), second.absent) == (2, ())


def test_nnunet_explicit_file_list(phantoms, tmp_path):
    folder = as_nnunet(phantoms, tmp_path / "copy")
    content = json.loads((folder / "dataset.json").read_text())
    images = [f"imagesTr/{NAMES[1]}_{i:04d}.nii.gz" for i in (0, 1)]
    content["dataset"] = {
        "only": {"images": images, "label": f"labelsTr/{NAMES[1]}.nii.gz"}
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    dataset = load_dataset(folder)
    assert [case.name for case in dataset.cases] == ["only"]
    assert unpaired_files(dataset) == ((), ())


def test_msd_finds_the_channel_files_of_nnunet_1(phantoms, tmp_path):
    folder = as_nnunet(phantoms, tmp_path / "copy", describe=False)
    pair = {
        "image": f"./imagesTr/{NAMES[0]}.nii.gz",
        "label": f"./labelsTr/{NAMES[0]}.nii.gz",
    }
    content = {
        "modality": {"0": "a", "1": "b"},
        "labels": {"0": "background", "1": "organ"},
        "training": [pair],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    assert [image.name for image in load_dataset(folder).cases[0].images] == [
        f"{NAMES[0]}_000{i}.nii.gz" for i in (0, 1)
    ]


@pytest.mark.parametrize(
    ("images", "labels"),
    [("image", "label"), ("img", "masks"), ("img", "mask"), ("Images", "Labels")],
)
def test_plain_folder_names(tmp_path, images, labels):
    folder = write_phantoms(tmp_path / "p", PhantomSettings(cases=2, shape=(8, 8, 8)))
    (folder / "manifest.json").unlink()
    (folder / "images").rename(folder / "renamed")
    (folder / "renamed").rename(folder / images)
    (folder / "labels").rename(folder / labels)
    assert len(load_dataset(folder).training_cases) == 2


def test_plain_folders_read_dicom_series_and_label_suffixes(tmp_path):
    image, label = phantom_case(PhantomSettings(shape=(8, 8, 8)), 0)
    for name in ("a_0001", "b_0002"):  # numbers that are no channels
        write_volume(tmp_path / "images" / f"{name}.nii.gz", image)
        write_volume(tmp_path / "labels" / f"{name}_seg.nii.gz", label)
    dicom = tmp_path / "images" / "c"
    dicom.mkdir()
    (dicom / "1.dcm").write_bytes(bytes(128) + b"DICM")
    write_volume(tmp_path / "labels" / "c.nii.gz", label)
    dataset = load_dataset(tmp_path)
    assert [case.name for case in dataset.cases] == ["a_0001", "b_0002", "c"]
    assert [len(case.images) for case in dataset.cases] == [1, 1, 1]
    assert all(case.label for case in dataset.cases)


def test_unpaired_files_are_found(tmp_path):
    folder = write_phantoms(tmp_path / "p", PhantomSettings(cases=3, shape=(8, 8, 8)))
    (folder / "manifest.json").unlink()
    (folder / "labels" / f"{NAMES[0]}.nii.gz").unlink()
    (folder / "images" / f"{NAMES[1]}.nii.gz").unlink()
    dataset = load_dataset(folder)
    assert [case.name for case in dataset.training_cases] == [NAMES[2]]
    images, labels = unpaired_files(dataset)
    assert [file.name for file in images] == [f"{NAMES[0]}.nii.gz"]
    assert [file.name for file in labels] == [f"{NAMES[1]}.nii.gz"]


def test_nothing_that_fits_lists_the_layouts(tmp_path):
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(FormatError) as caught:
        load_dataset(tmp_path)
    assert all(layout.description in str(caught.value) for layout in LAYOUTS.values())
    with pytest.raises(FormatError, match="not found"):
        load_dataset(tmp_path / "nowhere")
    (tmp_path / "dataset.json").write_text("{")
    with pytest.raises(FormatError, match="JSON"):
        load_dataset(tmp_path)


def test_label_folders_that_cannot_be_used(tmp_path):
    empty = Volume(np.zeros((1, 4, 4, 4), np.uint8), affine_from_spacing((1, 1, 1)))
    write_volume(tmp_path / "images" / "a.nii.gz", empty)
    write_volume(tmp_path / "labels" / "b.nii.gz", empty)
    with pytest.raises(FormatError, match="rename them"):
        load_dataset(tmp_path)
    (tmp_path / "labels" / "b.nii.gz").rename(tmp_path / "labels" / "a.nii.gz")
    with pytest.raises(LabelError, match="no label but background"):
        load_dataset(tmp_path)
    many = np.arange(4096, dtype=np.int16).reshape(1, 16, 16, 16)
    write_volume(tmp_path / "labels" / "a.nii.gz", empty.with_array(many))
    with pytest.raises(LabelError, match="swapped"):
        load_dataset(tmp_path)


def test_two_files_of_one_case_set_it_aside(tmp_path):
    image, label = phantom_case(PhantomSettings(shape=(8, 8, 8)), 0)
    for name in ("a", "b"):
        write_volume(tmp_path / "images" / f"{name}.nii.gz", image)
        write_volume(tmp_path / "labels" / f"{name}.nii.gz", label)
    write_volume(tmp_path / "images" / "a.nrrd", image)
    first, second = load_dataset(tmp_path).cases
    assert "a.nii.gz and a.nrrd are both this case" in first.complaint
    assert second.complaint == ""


def test_hippocampus(data_root):
    dataset = load_dataset(data_root / "hippocampus")
    assert (dataset.layout, len(dataset.cases), dataset.channels) == (
        "msd",
        201,
        ("MRI",),
    )
    assert dataset.labels.labels == {"Anterior": 1, "Posterior": 2}
    assert len(dataset.training_cases) == 201
    for case in dataset.cases:
        assert all(image.exists() for image in case.images)
