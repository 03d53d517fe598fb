import re
import shutil
from itertools import product

import numpy as np
import pytest

from class_trees import NOISY_ONE, write_image, write_mask, write_pair, write_tree
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.choice import (
    find_layout,
    load_dataset,
    load_inputs,
    unpaired_files,
)
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.datasets.splits import make_splits
from trivox.errors import FormatError
from trivox.volumes.formats import read_labels, read_volume


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree") / "data")


@pytest.fixture
def tree(source, tmp_path):
    return shutil.copytree(source, tmp_path / "data")


def test_folders_say_class_and_side(source):
    dataset = load_dataset(source)
    assert (dataset.layout, dataset.channels) == ("class-folders", ("image",))
    assert dataset.classes == ("subtype0", "subtype1", "subtype2")
    assert len(dataset.cases) == 12 + 4 + 2
    for case in dataset.cases:
        if case.split == "test":
            assert (case.class_name, case.label) == (None, None)
        else:
            assert case.class_name == f"subtype{case.name.split('_')[1]}"
            assert case.images[0].parts[-3:] == (
                case.split,
                case.class_name,
                f"{case.name}_0000.nii.gz",
            )
            assert case.label == case.images[0].with_name(f"{case.name}.nii.gz")
    assert unpaired_files(dataset) == ((), ())
    assert check_dataset(dataset).findings == ()
    assert [split.validation for split in make_splits(dataset.training_cases)] == [
        tuple(sorted(case.name for case in dataset.cases if case.split == "validation"))
    ]


def test_float_noise_in_masks_is_cleaned_on_the_strict_rule(tree):
    noisy = tree / "train" / "subtype0" / "quiz_0_001.nii.gz"
    assert NOISY_ONE in read_volume(noisy).array
    assert load_dataset(tree).labels.labels == {"label_1": 1, "label_2": 2}
    assert np.unique(read_labels(noisy).array).tolist() == [0, 1, 2]
    write_mask(noisy, (1.01, 2))
    assert [(f.code, f.case) for f in check_dataset(load_dataset(tree)).errors] == [
        ("fractional-label", "quiz_0_001")
    ]


@pytest.mark.parametrize("side", ["val", "Valid", "validation"])
def test_names_of_the_sides(tree, side):
    (tree / "validation").rename(tree / "other")
    (tree / "other").rename(tree / side)
    assert sum(case.split == "validation" for case in load_dataset(tree).cases) == 4


def test_without_split_folders_all_cases_are_for_training(source):
    dataset = load_dataset(source / "train")
    assert dataset.classes == ("subtype0", "subtype1", "subtype2")
    assert {case.split for case in dataset.cases} == {"train"}
    assert len(make_splits(dataset.training_cases)) == 5


def test_channels_masks_with_suffix_and_classes_of_test_cases(tmp_path):
    for i, name in enumerate(("HGG", "HGG", "LGG")):
        folder = tmp_path / "train" / name
        write_image(
            folder / f"a_{i:04d}_0000.nii.gz"
        )  # a case whose own name ends in four digits
        write_image(folder / f"a_{i:04d}_0001.nii.gz")
        write_mask(folder / f"a_{i:04d}_seg.nii.gz")
    write_image(tmp_path / "test" / "LGG" / "t_0000.nii.gz")
    write_image(tmp_path / "test" / "LGG" / "t_0001.nii.gz")
    dataset = load_dataset(tmp_path)
    assert dataset.channels == ("channel_0", "channel_1")
    assert [
        (case.name, len(case.images), case.class_name, case.split)
        for case in dataset.cases
    ] == [
        ("a_0000", 2, "HGG", "train"),
        ("a_0001", 2, "HGG", "train"),
        ("a_0002", 2, "LGG", "train"),
        ("t", 2, "LGG", "test"),
    ]
    assert all(case.label for case in dataset.training_cases)


def test_missing_masks_and_images_are_findings(tree):
    (tree / "train" / "subtype1" / "quiz_1_004.nii.gz").unlink()
    (tree / "train" / "subtype2" / "quiz_2_009_0000.nii.gz").unlink()
    alone = tree / "validation" / "subtype0" / "quiz_0_013_0000.nii.gz"
    alone.unlink()  # the mask that stays behind alone is still no image
    dataset = load_dataset(tree)
    assert {(f.code, f.case, f.severity) for f in check_dataset(dataset).findings} == {
        ("unpaired-image", "quiz_1_004", "warning"),
        ("unpaired-label", "quiz_2_009", "error"),
        ("unpaired-label", "quiz_0_013", "error"),
    }
    assert "quiz_1_004" in {
        case.name for case in dataset.training_cases
    }  # its class is known


def test_an_empty_class_folder_is_an_error_of_the_check(tree):
    (tree / "train" / "subtype3").mkdir()
    dataset = load_dataset(tree)
    assert dataset.classes[-1] == "subtype3"
    (finding,) = check_dataset(dataset).errors
    assert (finding.code, "subtype3" in finding.message) == (
        "class-without-cases",
        True,
    )


def test_a_name_that_says_another_class_than_its_folder(tree):
    wrong = tree / "train" / "subtype0"
    write_pair(wrong, "quiz_1_777")
    (case,) = [case for case in load_dataset(tree).cases if case.complaint]
    assert case.name == "quiz_1_777"
    assert re.search(
        r"subtype0/quiz_1_777_0000.*class 'subtype0', its name says 'subtype1'; move",
        case.complaint,
    )


@pytest.mark.parametrize(
    "rename",
    [
        lambda n: f"scan_{n:03d}",
        lambda n: f"scan_{n % 2}_{n:03d}",
        lambda n: f"scan_1_{n:03d}",
        lambda n: f"scan-{n}",
    ],
)
def test_numbers_in_names_that_are_no_classes_do_no_harm(tmp_path, rename):
    for number in range(12):
        write_pair(tmp_path / f"grade{int(number > 2)}", rename(number))
    assert len(load_dataset(tmp_path).cases) == 12


def test_two_cases_of_one_name_are_set_aside_with_both_places(tree):
    shutil.copytree(
        tree / "train" / "subtype0",
        tree / "validation" / "subtype0",
        dirs_exist_ok=True,
    )
    complaints = {case.name: case.complaint for case in load_dataset(tree).cases}
    assert re.search(
        r"2 cases have this name \(.*train/.*, .*validation/.*\)",
        complaints["quiz_0_001"],
    )
    assert "" in complaints.values()


@pytest.mark.parametrize(
    "arrange",
    [
        # a folder a case
        lambda root: [write_pair(root / f"p{i}", f"p{i}_scan") for i in range(3)],
        lambda root: [write_pair(root / "train" / f"p{i}", "scan") for i in range(3)],
        lambda root: [
            write_pair(root / "train" / side, f"a{i}")
            for i, side in product(range(3), ("images", "labels"))
        ],
        # no masks
        lambda root: [
            write_image(root / "train" / name / f"a{i}.nii.gz")
            for i, name in product(range(3), "xy")
        ],
        lambda root: [write_pair(root / "only", f"a{i}") for i in range(3)],
        lambda root: [write_pair(root, f"a{i}") for i in range(3)],
    ],
)
def test_other_arrangements_are_not_taken_for_class_folders(tmp_path, arrange):
    arrange(tmp_path)
    assert find_layout(tmp_path) is None
    with pytest.raises(FormatError, match="a folder a class"):
        load_dataset(tmp_path)


def test_brats_and_plain_folders_stay_what_they_are(tmp_path):
    brats = write_brain_phantoms(
        tmp_path / "b", BrainPhantomSettings(cases=2, shape=(16, 16, 16), test_cases=0)
    )
    for name, grade in zip(sorted(brats.glob("BraTS*")), ("HGG", "LGG"), strict=True):
        shutil.move(name, brats / grade / name.name)
    assert load_dataset(brats).layout == "brats"
    for kind, write in (("images", write_image), ("labels", write_mask)):
        for i in range(2):
            write(tmp_path / "p" / kind / f"a{i}.nii.gz")
    assert load_dataset(tmp_path / "p").layout == "folders"


def test_the_test_folder_alone_is_images_to_predict(source):
    assert [case.name for case in load_inputs(source / "test", channels=["CT"])] == [
        "quiz_900",
        "quiz_901",
    ]
