"""Classes and validation splits in manifests and nnU-Net raw folders."""

import json

import pytest

from class_trees import write_image, write_mask
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.splits import make_splits
from trivox.errors import DataError
from trivox.files import read_json, write_json

CASES = {
    "a": ("x", "train"),
    "b": ("y", "validation"),
    "c": (None, "train"),
    "d": ("x", "test"),
}


def told(dataset):
    return {case.name: (case.class_name, case.split) for case in dataset.cases}


# --- manifests
@pytest.fixture
def manifest(tmp_path):
    for name in CASES:
        write_image(tmp_path / f"{name}.nii.gz")
        write_mask(tmp_path / f"{name}_m.nii.gz")

    def write(**changes):
        cases = [
            {
                "case": name,
                "images": [f"{name}.nii.gz"],
                "label": f"{name}_m.nii.gz",
                "split": split,
                "class": class_name,
            }
            for name, (class_name, split) in CASES.items()
        ]
        write_json(
            tmp_path / "manifest.json", {"channels": ["CT"], "cases": cases, **changes}
        )
        return tmp_path

    return write


def test_json_and_csv_manifests_say_the_same(manifest, tmp_path):
    dataset = load_dataset(manifest())
    assert told(dataset) == CASES
    assert dataset.classes == ("x", "y")
    rows = [f"{n},{n}.nii.gz,{n}_m.nii.gz,{c or ''},{s}" for n, (c, s) in CASES.items()]
    (tmp_path / "cases.csv").write_text(
        "case,image,label,class,split\n" + "\n".join(rows)
    )
    write_json(tmp_path / "cases.json", {"classes": ["y", "x"]})
    listed = load_dataset(tmp_path / "cases.csv")
    assert told(listed) == CASES
    assert listed.classes == ("y", "x")


def test_declared_classes_keep_their_order_and_may_be_numbers(manifest):
    assert load_dataset(manifest(classes=["y", "z", "x"])).classes == ("y", "z", "x")
    cases = [
        {"case": n, "images": [f"{n}.nii.gz"], "class": k}
        for n, k in (("a", 1), ("b", 0))
    ]
    numbers = load_dataset(manifest(classes=[1, 0], cases=cases))
    assert numbers.classes == ("1", "0")
    assert [case.class_name for case in numbers.cases] == ["1", "0"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"classes": ["x"]}, "case 'b' is 'y', 'classes' lists"),
        ({"classes": ["x", "y", "x"]}, "'classes' lists"),
        (
            {"cases": [{"case": "a", "images": ["a.nii.gz"], "class": ["x"]}]},
            r"cases\.0\.class",
        ),
        ({"cases": [{"case": "a", "images": ["a.nii.gz"], "klass": "x"}]}, "klass"),
    ],
)
def test_manifests_that_contradict_themselves(manifest, changes, complaint):
    with pytest.raises(DataError, match=complaint) as caught:
        load_dataset(manifest(**changes))
    assert "manifest.json" in str(caught.value)


def test_a_case_with_a_class_but_no_mask_is_learnt_from(manifest, tmp_path):
    folder = manifest()
    content = read_json(folder / "manifest.json")
    for case in content["cases"]:
        if case["case"] in "ac":
            del case["label"]
    write_json(folder / "manifest.json", content)
    assert [case.name for case in load_dataset(folder).training_cases] == [
        "a",
        "b",
    ]  # c has neither


# --- nnU-Net raw
@pytest.fixture
def raw(tmp_path):
    def write(trivox=None, table=None, splits=None):
        for name, (_, split) in CASES.items():
            part = "Ts" if split == "test" else "Tr"
            write_image(tmp_path / f"images{part}" / f"{name}_0000.nii.gz")
            write_mask(tmp_path / f"labels{part}" / f"{name}.nii.gz")
        write_json(
            tmp_path / "dataset.json",
            {
                "channel_names": {"0": "CT"},
                "labels": {"background": 0, "organ": 1, "lesion": 2},
                "file_ending": ".nii.gz",
                **({"trivox": trivox} if trivox else {}),
            },
        )
        if table is not None:
            (tmp_path / "classification_labels.csv").write_text(table)
        if splits is not None:
            (tmp_path / "splits_final.json").write_text(json.dumps(splits))
        return tmp_path

    return write


FOLD = {"train": ["a", "c"], "val": ["b"]}
BLOCK = {"classes": {"a": "x", "b": "y", "d": "x"}}
TABLE = "identifier,subtype\na,x\nb,y\nc,\nd,x\n"


@pytest.mark.parametrize(
    ("block", "table"),
    [
        (BLOCK, None),
        (None, TABLE),
        (BLOCK, TABLE),
        ({"classes": {"a": "x"}}, "case,class\nb,y\nd,x\n"),
    ],
)
def test_nnunet_classes_from_either_place(raw, block, table):
    dataset = load_dataset(raw(block, table, [FOLD]))
    assert told(dataset) == CASES
    assert dataset.classes == ("x", "y")
    assert [split.validation for split in make_splits(dataset.training_cases)] == [
        ("b",)
    ]


def test_nnunet_places_that_contradict_each_other(raw):
    with pytest.raises(
        DataError, match=r"classification_labels\.csv: b is x, in dataset\.json it is y"
    ):
        load_dataset(raw(BLOCK, "case,class\nb,x\n"))


def test_several_folds_of_nnunet_leave_the_sides_of_cases_alone(raw):
    dataset = load_dataset(raw(splits=[FOLD, {"train": ["b"], "val": ["a", "c"]}]))
    assert {case.split for case in dataset.cases} == {"train", "test"}
    assert dataset.classes == ()


def test_the_split_of_a_case_without_mask_is_told_by_trivox(raw, tmp_path):
    folder = raw({**BLOCK, "splits": {"d": "train"}})
    (folder / "labelsTs" / "d.nii.gz").unlink()
    assert {case.name: case.split for case in load_dataset(folder).training_cases}[
        "d"
    ] == "train"


@pytest.mark.parametrize(
    ("splits", "complaint"),
    [
        ({"train": []}, "must list folds"),
        ([{"train": ["a"]}], "must list folds"),
        ([{"train": ["a", "b"], "val": ["b"]}], "fold 0: train and val both hold b"),
        (
            [{"train": ["a"], "val": ["ghost"]}],
            "it names ghost, which the dataset lacks",
        ),
        ([{"train": ["a"], "val": ["d"]}], "it names d of the test set"),
    ],
)
def test_splits_of_nnunet_that_cannot_be_meant(raw, splits, complaint):
    with pytest.raises(DataError, match=complaint) as caught:
        load_dataset(raw(splits=splits))
    assert "splits_final.json" in str(caught.value)
