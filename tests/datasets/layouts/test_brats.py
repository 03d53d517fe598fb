"""BraTS folders: families told by names alone, labels that cannot be confused, patients
kept together.
"""

from pathlib import Path

import numpy as np
import pytest

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.brats import (
    FAMILIES,
    SEQUENCES,
    family_of,
    parse_name,
    patient_of,
)
from trivox.datasets.layouts.choice import (
    load_dataset,
    load_inputs,
    read_saved_dataset,
    save_dataset,
)
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.datasets.reading import read_case, read_channels
from trivox.datasets.splits import make_splits
from trivox.errors import DataError, FormatError, LabelError
from trivox.volumes.formats import read_volume

OLD = ("_t1", "_t1ce", "_t2", "_flair", "_seg")
NEW = ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")


def touch(root: Path, case: str, suffixes=OLD, *, ending=".nii.gz", folder="") -> Path:
    """Empty files of a case: whoever opens one fails."""
    place = root / folder / case
    place.mkdir(parents=True, exist_ok=True)
    for suffix in suffixes:
        (place / f"{case}{suffix}{ending}").touch()
    return place


def first_channel(image: Path):
    return read_volume(image).array[0]


@pytest.mark.parametrize(
    ("case", "family", "patient"),
    [
        ("Brats17_TCIA_167_1", "2020", "Brats17_TCIA_167"),
        ("Brats18_2013_10_1", "2020", "Brats18_2013_10"),
        ("BraTS19_CBICA_AAB_1", "2020", "BraTS19_CBICA_AAB"),
        ("BraTS20_Training_001", "2020", "BraTS20_Training_001"),
        ("BraTS2021_00042", "2021", "00042"),
        ("brats2022_00042", "2021", "00042"),
        ("BraTS-GLI-00005-000", "2023", "00005"),
        ("BraTS-GLI-00005-001", "2023", "00005"),
        ("BraTS-GLI-02062-100", "post-treatment", "02062"),
        ("BraTS-GLI-02062-105", "post-treatment", "02062"),
        ("BraTS-PED-00005-000", None, "BraTS-PED-00005-000"),
        ("BraTS2021_42", None, "BraTS2021_42"),
        ("patient_001", None, "patient_001"),
    ],
)
def test_the_name_tells_family_and_patient(case, family, patient):
    assert family_of(case) == (FAMILIES[family] if family else None)
    assert patient_of(case) == patient


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("BraTS20_Training_001_t1.nii", "T1"),
        ("BraTS20_Training_001_T1CE.nii.gz", "T1ce"),
        ("BraTS2021_00000_t2.NII.GZ", "T2"),
        ("BraTS-GLI-00000-000-t2f.nii.gz", "FLAIR"),
        ("BraTS-GLI-00000-000-t1c.nii", "T1ce"),
        ("BraTS-GLI-00000-000-t1n.nii.gz", "T1"),
        ("BraTS-GLI-00000-000-T2W.nii.gz", "T2"),
        ("BraTS-GLI-00000-100-seg.nii.gz", "seg"),
        ("BraTS20_Training_001_t1.mha", None),
        ("._BraTS20_Training_001_t1.nii", None),
        ("BraTS20_Training_001_0000.nii.gz", None),
        ("BraTS20_Training_001.nii.gz", None),
        ("other_t1.nii", None),
    ],
)
def test_the_ending_tells_the_content_in_any_case(name, content):
    assert (parse_name(name) or ("", None))[1] == content


@pytest.mark.parametrize("family", FAMILIES)
def test_families_name_their_own_files(family):
    one = FAMILIES[family]
    for content in (*SEQUENCES, "seg"):
        assert parse_name(one.file_name(one.example, content)) == (one.example, content)
    assert family_of(one.example) is one


@pytest.mark.parametrize(
    ("cases", "suffixes", "labels"),
    [
        (
            ("BraTS20_Training_001", "Brats18_2013_10_1"),
            OLD,
            {"NCR": 1, "ED": 2, "ET": 4},
        ),
        (("BraTS2021_00000", "BraTS2021_00002"), OLD, {"NCR": 1, "ED": 2, "ET": 4}),
        (
            ("BraTS-GLI-00000-000", "BraTS-GLI-00000-001"),
            NEW,
            {"NCR": 1, "ED": 2, "ET": 3},
        ),
        (
            ("BraTS-GLI-00000-100", "BraTS-GLI-00000-101"),
            NEW,
            {"NCR": 1, "ED": 2, "ET": 3, "RC": 4},
        ),
        (
            ("BraTS20_Training_001", "BraTS2021_00002"),
            OLD,
            {"NCR": 1, "ED": 2, "ET": 4},
        ),
        (
            ("BraTS-GLI-00000-000", "BraTS-GLI-00007-100"),
            NEW,
            {"NCR": 1, "ED": 2, "ET": 3, "RC": 4},
        ),  # BraTS 2025
    ],
)
def test_labels_follow_the_family_and_no_file_is_opened(
    tmp_path, cases, suffixes, labels
):
    for case in cases:
        touch(tmp_path, case, suffixes)
    (tmp_path / "name_mapping.csv").write_text(
        "Grade,BraTS_2020_subject_ID\nHGG,BraTS20_Training_001\n"
    )
    dataset = load_dataset(tmp_path)
    assert (dataset.layout, dataset.channels) == (
        "brats",
        ("T1", "T1ce", "T2", "FLAIR"),
    )
    assert {case.name for case in dataset.cases} == set(cases)
    assert dataset.training_cases == dataset.cases
    scheme = dataset.labels
    assert (scheme.labels, scheme.nested) == (labels, True)
    assert scheme.regions["WT"] == (1, 2, labels["ET"])
    assert scheme.regions["TC"] == (1, labels["ET"])
    assert scheme.regions["ET"] == (labels["ET"],)
    assert ("RC" in scheme.regions) == ("RC" in labels)
    for case in dataset.cases:
        images = [f"{case.name}{suffix}.nii.gz" for suffix in suffixes[:4]]
        assert [image.name for image in case.images] == images
        assert case.absent == ()
        assert case.label.name == f"{case.name}{suffixes[4]}.nii.gz"
        assert (case.labels or scheme) == family_of(case.name).labels
    save_dataset(dataset, tmp_path / "saved.json")
    assert read_saved_dataset(tmp_path / "saved.json") == dataset


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (
            "BraTS20_Training_001",
            "BraTS-GLI-00000-000",
            ["2017-2020", "2023", "label 4 is enhancing tumour"],
        ),
        (
            "BraTS2021_00000",
            "BraTS-GLI-02062-100",
            ["2021-2022", "post-treatment", "label 4 is the resection cavity"],
        ),
    ],
)
def test_families_whose_labels_contradict_are_predicted_but_not_trained_on(
    tmp_path, first, second, words
):
    touch(tmp_path, first, OLD, folder="a")
    touch(tmp_path, second, NEW, folder="b")
    with pytest.raises(LabelError) as caught:
        load_dataset(tmp_path)
    assert all(
        word in str(caught.value) for word in [*words, first, second, str(tmp_path)]
    )
    assert "\n" not in str(caught.value)
    cases = {case.name: case for case in load_inputs(tmp_path, channels=SEQUENCES)}
    assert {name: case.labels for name, case in cases.items()} == {
        n: family_of(n).labels for n in (first, second)
    }


def test_nested_folders_and_validation_cases(tmp_path):
    touch(tmp_path, "Brats18_2013_10_1", folder="MICCAI_BraTS_2018_Data_Training/HGG")
    touch(tmp_path, "Brats18_2013_11_1", folder="MICCAI_BraTS_2018_Data_Training/LGG")
    touch(
        tmp_path, "Brats18_2013_20_1", OLD[:4], folder="MICCAI_BraTS2018_ValidationData"
    )
    touch(tmp_path, "BraTS20_Validation_001", OLD[:4])
    touch(tmp_path, "Brats18_2013_30_1", folder="fold/test")
    dataset = load_dataset(tmp_path)
    assert [case.name for case in dataset.training_cases] == [
        "Brats18_2013_10_1",
        "Brats18_2013_11_1",
    ]
    assert sum(case.split == "test" for case in dataset.cases) == 3
    assert check_codes(dataset, "unpaired") == []
    inner = load_dataset(
        tmp_path / "fold" / "test"
    )  # given itself, it is what to train on
    assert [case.split for case in inner.cases] == ["train"]


@pytest.mark.parametrize(
    "folder", ["latest", "contest", "data", "training", "TrainingData", "intervals"]
)
def test_folders_that_only_sound_like_test_data(tmp_path, folder):
    touch(tmp_path, "BraTS2021_00000", folder=folder)
    assert load_dataset(tmp_path).cases[0].split == "train"


def check_codes(dataset, part=""):
    return [
        (f.code, f.case)
        for f in check_dataset(dataset, workers=1).findings
        if part in f.code
    ]


def test_one_label_map_of_another_name_is_taken_two_are_not(tmp_path):
    place = touch(tmp_path, "BraTS20_Training_355", OLD[:4], ending=".nii")
    touch(tmp_path, "BraTS20_Training_356", ending=".nii")
    odd = place / "W39_1998.09.19_Segm.nii"
    odd.touch()
    cases = {case.name: case for case in load_dataset(tmp_path).cases}
    assert cases["BraTS20_Training_355"].label == odd
    (place / "another_seg.nii").touch()
    dataset = load_dataset(tmp_path)
    assert {case.name: case.label for case in dataset.cases}[
        "BraTS20_Training_355"
    ] is None
    assert check_codes(dataset, "unpaired") == [
        ("unpaired-image", "BraTS20_Training_355")
    ]


def test_a_label_map_without_images_is_reported(tmp_path):
    touch(tmp_path, "BraTS20_Training_001")
    touch(tmp_path, "BraTS20_Training_002", OLD[4:])
    assert ("unpaired-label", "BraTS20_Training_002_seg") in check_codes(
        load_dataset(tmp_path), "unpaired"
    )


def test_files_of_a_case_may_lie_apart_but_not_twice(tmp_path):
    touch(tmp_path, "BraTS2021_00000", OLD[:4], folder="images")
    touch(tmp_path, "BraTS2021_00000", OLD[4:], folder="labels")
    (case,) = load_dataset(tmp_path).cases
    assert len(case.images) == 4
    assert case.label is not None
    touch(tmp_path, "BraTS2021_00000", OLD[:1], ending=".nii", folder="images")
    with pytest.raises(DataError, match=r"BraTS2021_00000: .*both its T1; remove one"):
        load_dataset(tmp_path)
    touch(tmp_path, "BraTS2021_00001")
    twice, whole = load_dataset(tmp_path).cases
    assert (bool(twice.complaint), whole.complaint) == (True, "")


def test_other_challenges_are_refused_since_their_labels_mean_other_things(tmp_path):
    touch(tmp_path, "BraTS-PED-00001-000", NEW)
    with pytest.raises(
        FormatError, match=r"BraTS-PED-00001-000-seg.*whose labels mean other things"
    ):
        load_dataset(tmp_path)


def test_a_manifest_in_the_folder_is_asked_first(tmp_path):
    touch(tmp_path, "BraTS2021_00000")
    (tmp_path / "manifest.csv").write_text(
        "case,image\na,BraTS2021_00000/BraTS2021_00000_t1.nii.gz\n"
    )
    assert load_dataset(tmp_path).layout == "manifest"


# --- time points and splits
def test_all_time_points_of_a_patient_fall_on_one_side(tmp_path):
    for patient in range(7):
        for time in ("000", "001", "100")[: 1 + patient % 3]:
            touch(tmp_path, f"BraTS-GLI-{patient:05d}-{time}", NEW)
    dataset = load_dataset(tmp_path)
    for split in make_splits(dataset.training_cases, folds=3):
        assert not {patient_of(name) for name in split.train} & {
            patient_of(name) for name in split.validation
        }
        assert {*split.train, *split.validation} == {c.name for c in dataset.cases}


# --- the same brain in every family
def test_region_masks_agree_in_all_families(tmp_path):
    masks = {}
    for family in FAMILIES:
        settings = BrainPhantomSettings(
            cases=2, family=family, shape=(24, 28, 26), seed=3
        )
        dataset = load_dataset(write_brain_phantoms(tmp_path / family, settings))
        labels = [
            read_case(case, channels=4, labels=dataset.labels).label
            for case in dataset.cases
        ]
        table = dataset.labels.region_table()[:3]
        masks[family] = [table[:, label] for label in labels]
        assert [*dataset.labels.targets][:3] == ["WT", "TC", "ET"]
        for label in labels:  # regions -> labels -> regions, for what the family writes
            painted = dataset.labels.paint_regions(
                dataset.labels.region_table()[:, label]
            )
            np.testing.assert_array_equal(painted, label)
    for family in FAMILIES:
        np.testing.assert_equal(masks[family], masks["2020"])
        assert all(mask.any() for mask in masks[family][0])


# --- what to predict on
def test_inputs_are_one_case_or_many_with_or_without_label(tmp_path):
    one = touch(tmp_path / "many", "BraTS-GLI-00000-100", NEW[:4])
    touch(tmp_path / "many", "BraTS-GLI-00001-000", NEW)
    (case,) = load_inputs(one, channels=SEQUENCES)
    assert (case.name, len(case.images), case.absent) == ("BraTS-GLI-00000-100", 4, ())
    assert case.labels.labels["RC"] == 4
    assert [c.name for c in load_inputs(tmp_path / "many", channels=SEQUENCES)] == [
        "BraTS-GLI-00000-100",
        "BraTS-GLI-00001-000",
    ]


def test_inputs_come_in_the_order_that_the_model_names(tmp_path):
    touch(tmp_path, "BraTS2021_00000", OLD[:3])
    (case,) = load_inputs(
        tmp_path, channels=["FLAIR", "T1w", "t1gd", "T2w"]
    )  # the Decathlon's brain tumours
    assert [image.name for image in case.images] == [
        f"BraTS2021_00000{s}.nii.gz" for s in ("_t1", "_t1ce", "_t2")
    ]
    assert case.absent == (0,)
    (few,) = load_inputs(tmp_path, channels=["T2", "T1ce"])
    assert [image.name for image in few.images] == [
        f"BraTS2021_00000{s}.nii.gz" for s in ("_t2", "_t1ce")
    ]
    (unnamed,) = load_inputs(tmp_path, channels=["a", "b", "c", "d"])
    assert unnamed.absent == (3,)
    with pytest.raises(
        DataError, match="BraTS2021_00000: 3 image files, the model reads"
    ):
        load_inputs(tmp_path, channels=["CT", "PET"])


def test_a_case_without_a_sequence_is_read_with_zeros_and_refused_for_training(
    tmp_path,
):
    settings = BrainPhantomSettings(
        cases=3, test_cases=1, shape=(16, 18, 20), missing=((0, "T1ce"), (2, "FLAIR"))
    )
    write_brain_phantoms(tmp_path, settings)
    dataset = load_dataset(tmp_path)
    first, second, held_out = dataset.cases
    assert (first.absent, second.absent, held_out.absent) == ((1,), (), (3,))
    full, zeros = (read_channels(case, channels=4).array for case in (second, first))
    assert full.any(axis=(1, 2, 3)).all()
    assert [*zeros.any(axis=(1, 2, 3))] == [True, False, True, True]
    for index, image in zip((0, 2, 3), first.images, strict=True):
        np.testing.assert_array_equal(zeros[index], first_channel(image))
    findings = [
        f
        for f in check_dataset(dataset, workers=1).findings
        if f.code in ("missing-channel", "channel-count")
    ]
    assert [(f.severity, f.case) for f in findings] == [
        ("error", "BraTS20_Training_001"),
        ("warning", "BraTS20_Training_003"),
    ]
    assert "BraTS20_Training_001: has no T1ce file" in str(findings[0])
    assert [case.absent for case in load_inputs(tmp_path, channels=SEQUENCES)] == [
        (1,),
        (),
        (3,),
    ]


# --- real scans
def test_brats_cubes(data_root):
    dataset = load_dataset(data_root / "brats-cubes")
    assert (dataset.layout, len(dataset.cases), len(dataset.training_cases)) == (
        "brats",
        282,
        282,
    )
    assert dataset.labels.labels == {"NCR": 1, "ED": 2, "ET": 4}
    assert not any(case.absent or case.labels for case in dataset.cases)
