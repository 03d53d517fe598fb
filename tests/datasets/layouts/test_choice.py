import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import (
    LAYOUTS,
    load_dataset,
    load_inputs,
    read_saved_dataset,
    save_dataset,
    unpaired_files,
)
from trivox.datasets.phantoms.ellipsoids import (
    PhantomSettings,
    phantom_case,
    write_phantoms,
)
from trivox.errors import DataError, FormatError, LabelError
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

SETTINGS = PhantomSettings(
    cases=4, shape=(8, 12, 10), channels=2, test_cases=1, neighbour=True
)
NAMES = [f"phantom_{i:03d}" for i in range(4)]


@pytest.fixture
def phantoms(tmp_path):
    return write_phantoms(tmp_path / "phantoms", SETTINGS)


def as_csv(folder: Path, target: Path) -> Path:
    entries = json.loads((folder / "manifest.json").read_text())["cases"]
    target.mkdir()
    with (target / "dataset.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            [
                "case",
                "image:contrast_0",
                "image:contrast_1",
                "label",
                "patient",
                "split",
            ]
        )
        for entry in entries:
            paths = [
                f"../{folder.name}/{p}" for p in [*entry["images"], entry["label"]]
            ]
            writer.writerow([entry["case"], *paths, entry["patient"], entry["split"]])
    return target


def as_msd(folder: Path, target: Path) -> Path:
    for split, cases in (("Tr", NAMES[:3]), ("Ts", NAMES[3:])):
        for name in cases:
            channels = [
                read_volume(folder / "images" / f"{name}_{i:04d}.nii.gz")
                for i in (0, 1)
            ]
            both = channels[0].with_array(np.concatenate([c.array for c in channels]))
            write_volume(target / f"images{split}" / f"{name}.nii.gz", both)
    shutil.copytree(folder / "labels", target / "labelsTr")
    (target / "imagesTr" / "._phantom_000.nii.gz").write_bytes(b"junk")
    pairs = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"}
        for n in ["._phantom_000", *NAMES[:3]]
    ]
    content = {
        "name": "phantoms",
        "modality": {"1": "contrast_1", "0": "contrast_0"},
        "labels": {"0": "background", "1": "organ", "2": "lesion", "3": "neighbour"},
        "training": pairs,
        "test": [f"./imagesTs/{NAMES[3]}.nii.gz"],
    }
    (target / "dataset.json").write_text(json.dumps(content))
    return target


def as_nnunet(folder: Path, target: Path, *, describe: bool = True) -> Path:
    for split, cases in (("Tr", NAMES[:3]), ("Ts", NAMES[3:])):
        for kind in ("images", "labels"):
            (target / f"{kind}{split}").mkdir(parents=True)
        for name in cases:
            for i in (0, 1):
                shutil.copy(
                    folder / "images" / f"{name}_{i:04d}.nii.gz",
                    target / f"images{split}",
                )
            shutil.copy(folder / "labels" / f"{name}.nii.gz", target / f"labels{split}")
    content = {
        "channel_names": {"0": "contrast_0", "1": "contrast_1"},
        "labels": {"background": 0, "organ": 1, "lesion": 2, "neighbour": 3},
        "file_ending": ".nii.gz",
    }
    if describe:
        (target / "dataset.json").write_text(json.dumps(content))
    return target


def as_folders(folder: Path, target: Path) -> Path:
    return as_nnunet(folder, target, describe=False)


LAYOUT_WRITERS = {
    "manifest": as_csv,
    "msd": as_msd,
    "nnunet": as_nnunet,
    "folders": as_folders,
}


def contents(dataset: Dataset) -> dict:
    """What a dataset holds, however it is laid out: voxels by case, split, label
    values.
    """
    return {
        case.name: (
            case.split,
            b"".join(read_volume(image).array.tobytes() for image in case.images),
            read_volume(case.label).array.tobytes()
            if case.label and case.split == "train"
            else None,
        )
        for case in dataset.cases
    }


@pytest.mark.parametrize("layout", LAYOUT_WRITERS)
def test_every_layout_gives_the_same_cases(phantoms, tmp_path, layout):
    original, copy = (
        load_dataset(phantoms),
        load_dataset(LAYOUT_WRITERS[layout](phantoms, tmp_path / "copy")),
    )
    assert copy.layout == layout
    assert contents(copy) == contents(original)
    assert [case.patient for case in copy.cases] == NAMES
    assert sorted(copy.labels.labels.values()) == [1, 2, 3]
    if layout not in ("folders", "manifest"):  # these find the label values by reading
        assert copy.labels == original.labels
    if layout != "folders":
        assert copy.channels == original.channels
    assert unpaired_files(copy) == ((), ())
    assert len(copy.channels) == 2
    assert all(image.is_absolute() for case in copy.cases for image in case.images)


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


def test_nnunet_lists_the_channel_that_is_missing(phantoms, tmp_path):
    folder = as_nnunet(phantoms, tmp_path / "copy")
    missing = folder / "imagesTr" / f"{NAMES[0]}_0001.nii.gz"
    missing.unlink()
    assert missing in load_dataset(folder).cases[0].images


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


def test_csv_takes_names_from_its_json_sibling(phantoms, tmp_path):
    folder = as_csv(phantoms, tmp_path / "copy")
    (folder / "dataset.json").write_text(
        '{"labels": {"liver": 1, "tumour": 2, "spleen": 3}}'
    )
    assert load_dataset(folder).labels.labels == {"liver": 1, "tumour": 2, "spleen": 3}


def test_csv_with_one_image_column_of_several_channels(tmp_path):
    write_volume(
        tmp_path / "i.nii.gz",
        Volume(np.zeros((3, 4, 4, 4), np.int16), affine_from_spacing((1, 1, 1))),
    )
    (tmp_path / "cases.csv").write_text(
        "case;image;label\na;i.nii.gz;\n", encoding="utf-8-sig"
    )
    dataset = load_dataset(tmp_path / "cases.csv")
    assert dataset.channels == ("channel_0", "channel_1", "channel_2")
    assert dataset.labels is None
    assert dataset.cases[0].label is None


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name,image\na,b.nii\n", "needs the columns 'case' and 'image'"),
        ("case,image,split\na,b.nii,val\n", "line 2: split: "),
        ("case,image\na,b.nii,c\n", "line 2: 3 cells"),
        ("case,image:A,image:B\na,b.nii,\n", r"line 2: no image for channel \['B'\]"),
        ("case,image\na,b.nii\na,c.nii\n", "2 cases are named 'a'"),
        ("case,image\n", "no cases found"),
        ("", "needs the columns"),
    ],
)
def test_csv_errors_say_where(tmp_path, text, complaint):
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=complaint):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"colour": 1}, "colour: "),
        ({"labels": {"organ": "x"}}, "labels must map names"),
        ({"labels": {"a": 1, "b": 1}}, "must differ"),
        ({"cases": [{"case": "a"}]}, r"cases\.0\.images"),
        (
            {"cases": [{"case": "a", "images": {"T9": "x.nii"}}]},
            r"case 'a' has images \['T9'\]",
        ),
        ({"cases": []}, "no cases"),
    ],
)
def test_json_manifest_errors_say_where(tmp_path, change, complaint):
    content = {
        "channels": ["T1"],
        "labels": {"organ": 1},
        "cases": [{"case": "a", "images": {"T1": "x.nii"}}],
    }
    (tmp_path / "trivox.json").write_text(json.dumps(content))
    load_dataset(tmp_path)
    (tmp_path / "trivox.json").write_text(json.dumps(content | change))
    with pytest.raises(DataError, match=complaint) as caught:
        load_dataset(tmp_path)
    assert "trivox.json" in str(caught.value)
    assert "\n" not in str(caught.value)


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


def test_two_files_of_one_case_are_refused(tmp_path):
    image, label = phantom_case(PhantomSettings(shape=(8, 8, 8)), 0)
    write_volume(tmp_path / "images" / "a.nii.gz", image)
    write_volume(tmp_path / "images" / "a.nrrd", image)
    write_volume(tmp_path / "labels" / "a.nii.gz", label)
    with pytest.raises(FormatError, match="are both case 'a'"):
        load_dataset(tmp_path)


# --- what to predict on


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
    with pytest.raises(DataError, match=r"case 'a' has channel files \[0\]"):
        load_inputs(touch(tmp_path / "in", "a_0000.nii.gz"), channels=["T1", "T2"])


def test_hippocampus(data_root):
    dataset = load_dataset(data_root / "hippocampus")
    assert (dataset.layout, len(dataset.cases), dataset.channels) == (
        "msd",
        201,
        ("MRI",),
    )
    assert dataset.labels.labels == {"Anterior": 1, "Posterior": 2}
    assert len(dataset.training_cases) == 201
    assert all(image.exists() for case in dataset.cases for image in case.images)
