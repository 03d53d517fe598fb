"""Folds that a dataset declares are those of a training."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.declared_folds import folds_of_column, read_splits
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.splits import Split, dataset_splits
from trivox.errors import DataError, FormatError, RecipeError
from trivox.files import read_json, write_json
from trivox.tasks.checking import require_foreground
from trivox.tasks.run import fold_folders, require_declared_fold
from trivox.tasks.stages import splits_of
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

AFFINE = affine_from_spacing((1, 1, 1))


def listed(names, **changes):
    return [
        Case(name=name, images=(Path("/x.nii"),), label=Path("/y.nii"), **changes)
        for name in names
    ]


def dataset_of(cases, declared):
    return Dataset(
        name="d",
        root=Path("/d"),
        layout="nnunet",
        channels=("CT",),
        labels=LabelScheme(labels={"a": 1}),
        folds=declared.folds,
        folds_from=declared.source,
        cases=tuple(cases),
    )


numbers_strategy = st.lists(st.integers(0, 3), min_size=4, max_size=12).filter(
    lambda numbers: len(set(numbers)) > 1
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(numbers=numbers_strategy, folds=st.integers(1, 4), shift=st.integers(0, 2))
def test_declared_folds_are_those_of_the_training(
    tmp_path_factory, numbers, folds, shift
):
    """The same folds as a file of nnU-Net and as a column of a table."""
    names = [f"c{i:02d}" for i in range(len(numbers))]
    cases = listed(names)
    by_number = {
        number: {n for n, k in zip(names, numbers, strict=True) if k == number}
        for number in sorted(set(numbers))
    }
    content = [
        {"train": sorted(set(names) - part), "val": sorted(part)}
        for part in [*by_number.values()][:folds]
    ]
    file = tmp_path_factory.mktemp("folds") / "splits_final.json"
    write_json(file, content)
    splits = dataset_splits(dataset_of(cases, read_splits(file, cases)))
    wanted = [Split(tuple(fold["train"]), tuple(fold["val"])) for fold in content]
    assert [*splits] == wanted
    assert {split.source for split in splits} == {"splits_final.json"}
    column = {n: k + shift for n, k in zip(names, numbers, strict=True)}
    declared = folds_of_column(cases, column, where=Path("m.csv"))
    by_column = dataset_splits(dataset_of(cases, declared))
    assert [*by_column][:folds] == wanted
    assert {split.source for split in by_column} == {"column 'fold' of m.csv"}


def splits_file(tmp_path, *folds):
    file = tmp_path / "splits_final.json"
    write_json(file, [{"train": list(t), "val": list(v)} for t, v in folds])
    return file


def test_what_folds_leave_out_and_whom_they_part_is_said(tmp_path):
    cases = [*listed("ab", patient="p"), *listed("cde")]
    file = splits_file(tmp_path, ("ac", "b"), ("ad", "c"))
    remarks = read_splits(file, cases).remarks
    assert remarks == (
        "splits_final.json: no fold uses e; add what is meant to be used",
        "splits_final.json: some folds leave out b, d; add what is meant to be used",
        "splits_final.json: fold 0 has patients p on both sides, so that its figures "
        "flatter; put all cases of a patient on one side",
    )


@pytest.mark.parametrize(
    ("folds", "complaint"),
    [
        ([("ab", "c"), ("ab", "b")], "fold 1: train and val both hold b"),
        ([("ab", "xyz")], "fold 0: it names x, y, z, which the dataset lacks"),
        ([("ab", "")], "fold 0: val is empty"),
        ([], "lists no fold"),
    ],
)
def test_folds_that_cannot_be_meant_are_refused(tmp_path, folds, complaint):
    file = splits_file(tmp_path, *folds)
    with pytest.raises(FormatError, match=f"splits_final.json: {complaint}"):
        read_splits(file, listed("abc"))


def test_a_fold_whose_cases_are_set_aside_is_refused(tmp_path):
    cases = listed("abc")
    declared = read_splits(splits_file(tmp_path, ("ab", "c")), cases)
    cases[2] = cases[2].with_complaint("spoiled; mend it")
    with pytest.raises(
        DataError, match=r"fold 0 of splits_final\.json has no case to val"
    ):
        dataset_splits(dataset_of(cases, declared))


def test_a_run_says_where_its_folds_are_from(tmp_path):
    cases = listed("abcd")
    file = splits_file(tmp_path, ("ab", "cd"), ("cd", "ab"), ("ac", "bd"))
    dataset = dataset_of(cases, read_splits(file, cases))
    splits = splits_of(dataset, tmp_path)
    recorded = read_json(tmp_path / "splits.json")
    assert recorded[2] == {
        "train": ["a", "c"],
        "validation": ["b", "d"],
        "from": "splits_final.json",
    }
    request = RunRequest(tmp_path, tmp_path / "run", fold="3")
    known = r"fold '3' does not exist \(splits_final.json: 3\); choose 0 to 2, or all"
    with pytest.raises(RecipeError, match=known):
        fold_folders(request, splits)
    with pytest.raises(RecipeError, match=known):
        require_declared_fold(request, dataset)
    everything = RunRequest(tmp_path, tmp_path / "run", fold="all")
    require_declared_fold(everything, dataset)
    assert len(fold_folders(everything, splits)) == 3


def test_records_without_a_source_are_those_of_an_older_run(tmp_path):
    cases = listed("abcd")
    dataset = dataset_of(cases, read_splits(splits_file(tmp_path, ("ab", "cd")), cases))
    splits_of(dataset, tmp_path)
    (fold,) = read_json(tmp_path / "splits.json")
    del fold["from"]
    write_json(tmp_path / "splits.json", [fold])
    (tmp_path / "checkpoints" / "latest").mkdir(parents=True)
    splits_of(dataset, tmp_path)


WORDS = {
    "train": ("train", "Training", "TRAIN"),
    "validation": ("val", "Valid", "VALIDATION"),
    "test": ("test", "Testing"),
}


@pytest.mark.parametrize("turn", range(3))
def test_the_split_of_a_table_is_heeded_in_any_words(tmp_path, turn):
    rows = ["Case,image,Label,Split"]
    sides = {}
    for side, words in WORDS.items():
        for place in range(2):
            word = words[(turn + place) % len(words)]
            sides[f"{side}{place}"] = side
            rows.append(f"{side}{place},{side}{place}.nii,{side}{place}_l.nii,{word}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    for name in sides:
        array = np.ones((1, 2, 2, 2), np.uint8)
        write_volume(tmp_path / f"{name}_l.nii", Volume(array, AFFINE))
    dataset = load_dataset(tmp_path)
    assert {case.name: case.split for case in dataset.cases} == sides
    (split,) = dataset_splits(dataset)
    assert split == Split(("train0", "train1"), ("validation0", "validation1"))


def test_patients_of_a_table_are_never_parted(tmp_path):
    rows = ["case,image,PATIENT"] + [f"c{i},c{i}.nii,p{i // 2}" for i in range(8)]
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    for split in dataset_splits(load_dataset(tmp_path)):
        patients = {int(name[1:]) // 2 for name in split.train}
        assert not patients & {int(name[1:]) // 2 for name in split.validation}


def test_cases_without_a_fold_and_numbers_from_one_are_said():
    cases = listed("abcd")
    numbers = {"a": 1, "b": 2, "c": 1, "d": None}
    declared = folds_of_column(cases, numbers, where=Path("m.csv"))
    assert [fold.validation for fold in declared.folds] == [("a", "c"), ("b",)]
    assert all("d" in fold.train for fold in declared.folds)
    without, renamed = declared.remarks
    assert "d have no fold" in without
    assert "folds 1, 2 are --fold 0 to 1" in renamed


def test_a_json_manifest_gives_folds_too(tmp_path):
    cases = [
        {"case": f"c{i}", "images": [f"c{i}.nii"], "fold": i % 2} for i in range(4)
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"cases": cases}))
    first, second = dataset_splits(load_dataset(tmp_path))
    assert (first.validation, second.validation) == (("c0", "c2"), ("c1", "c3"))


# -- foreground --------------------------------------------------------------------------
def labelled_folder(tmp_path, filled):
    """Cases of which those in `filled` hold a label."""
    rng = np.random.default_rng(3)
    for number in range(5):
        name = f"c{number}"
        image = rng.integers(1, 99, (1, 3, 4, 4)).astype(np.int16)
        label = np.zeros((1, 3, 4, 4), np.uint8)
        label[:, 1:2, 1:3, 1:3] = name in filled
        write_volume(tmp_path / f"imagesTr/{name}_0000.nii.gz", Volume(image, AFFINE))
        write_volume(tmp_path / f"labelsTr/{name}.nii.gz", Volume(label, AFFINE))
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "a": 1},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    return load_dataset(tmp_path)


def test_labels_that_are_all_empty_are_an_error(tmp_path):
    report = check_dataset(labelled_folder(tmp_path, ()))
    (finding,) = report.errors
    assert finding.code == "no-foreground"
    assert "none of 5 label maps" in finding.message


def test_labels_that_are_mostly_empty_are_counted(tmp_path):
    report = check_dataset(labelled_folder(tmp_path, ("c1", "c2")))
    assert not report.errors
    (finding,) = [each for each in report.warnings if each.code == "mostly-empty"]
    assert finding.message == "3 of 5 label maps hold no label: c0, c3, c4"


def test_a_fold_that_is_trained_on_nothing_is_refused(tmp_path):
    dataset = labelled_folder(tmp_path, ("c2",))
    file = tmp_path / "check.json"
    write_json(file, check_dataset(dataset).to_json())
    splits = dataset_splits(dataset)
    (bad,) = [i for i, split in enumerate(splits) if "c2" in split.validation]
    good = [i for i in range(len(splits)) if i != bad]
    require_foreground(dataset, splits, good, file)
    with pytest.raises(DataError, match=f"4 label maps that fold {bad} is trained on"):
        require_foreground(dataset, splits, [bad], file)
