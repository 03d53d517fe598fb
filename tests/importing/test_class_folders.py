"""`trivox import class-folders`: whole or not at all, and read back as the same cases,
classes and splits.
"""

import csv
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from class_trees import write_image, write_mask, write_pair, write_tree
from trivox.cli import app
from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.splits import make_splits
from trivox.errors import (
    DataError,
    FormatError,
    GeometryError,
    LabelError,
    RecipeError,
    ResourceError,
)
from trivox.files import read_json
from trivox.importing import class_folders as class_folders_import
from trivox.importing.class_folders import ImportedClasses, import_class_folders
from trivox.volumes.formats import read_labels, read_volume, write_volume
from trivox.volumes.volume import Volume, affine_from_spacing

NAMES = {"pancreas": 1, "lesion": 2}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree") / "data")


@pytest.fixture
def tree(source, tmp_path):
    return shutil.copytree(source, tmp_path / "data")


def meaning(dataset):
    return {
        case.name: (case.class_name, case.split, case.patient) for case in dataset.cases
    }


def files_in(folder):
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


# --- what is written
def test_what_is_written_is_read_back_as_the_same(source, tmp_path):
    done = import_class_folders(source, tmp_path / "raw", labels=NAMES, channels=["CT"])
    assert done == ImportedClasses(
        cases=18,
        classes={"subtype0": 4, "subtype1": 7, "subtype2": 5},
        folds=1,
        validation=4,
        test=2,
        unlabelled=0,
        masks_alone=0,
    )
    original = load_dataset(source)
    written = load_dataset(tmp_path / "raw")
    assert meaning(written) == meaning(original)
    assert (written.layout, written.classes, written.channels) == (
        "nnunet",
        original.classes,
        ("CT",),
    )
    assert written.labels.labels == NAMES
    assert make_splits(written.training_cases) == make_splits(original.training_cases)
    by_name = {case.name: case for case in written.cases}
    for old in original.cases:
        new = by_name[old.name]
        np.testing.assert_array_equal(
            read_volume(new.images[0]).array, read_volume(old.images[0]).array
        )
        if old.label is not None:
            mask = read_volume(new.label).array
            assert mask.dtype == np.uint8
            np.testing.assert_array_equal(mask, read_labels(old.label).array)
    assert check_dataset(written).findings == ()


def test_files_for_nnunet(source, tmp_path):
    import_class_folders(source, tmp_path / "raw", labels=NAMES, channels=["CT"])
    content = read_json(tmp_path / "raw" / "dataset.json")
    assert content["labels"] == {"background": 0, "pancreas": 1, "lesion": 2}
    assert (
        content["channel_names"],
        content["numTraining"],
        content["file_ending"],
    ) == ({"0": "CT"}, 16, ".nii.gz")
    (fold,) = read_json(tmp_path / "raw" / "splits_final.json")
    labelled = {
        path.name.removesuffix(".nii.gz")
        for path in (tmp_path / "raw" / "labelsTr").iterdir()
    }
    assert {*fold["train"], *fold["val"]} == labelled
    assert len(fold["val"]) == 4
    with (tmp_path / "raw" / "classification_labels.csv").open(newline="") as file:
        rows = {
            row["case"]: (row["class"], row["split"]) for row in csv.DictReader(file)
        }
    assert rows["quiz_0_001"] == ("subtype0", "train")
    assert rows["quiz_900"] == ("", "test")
    assert len(rows) == 18


def test_without_a_declared_split_there_are_five_folds_stratified_by_class(
    source, tmp_path
):
    done = import_class_folders(source / "train", tmp_path / "raw")
    folds = read_json(tmp_path / "raw" / "splits_final.json")
    assert done.folds == len(folds) == 5
    written = load_dataset(tmp_path / "raw")
    assert [
        {"train": list(s.train), "val": list(s.validation)}
        for s in make_splits(written.training_cases)
    ] == folds
    assert written.labels.labels == {"label_1": 1, "label_2": 2}


def test_odd_values_formats_and_channels_become_what_nnunet_takes(tmp_path):
    for i in range(4):
        folder = tmp_path / "data" / "ab"[i % 2]
        write_image(folder / f"c{i}.mha", i, channels=2)
        write_mask(folder / f"c{i}_seg.mha", (7, 300))
    import_class_folders(
        tmp_path / "data", tmp_path / "raw", labels={"lesion": 300, "organ": 7}
    )
    written = load_dataset(tmp_path / "raw")
    assert written.labels.labels == {"organ": 1, "lesion": 2}
    assert written.channels == ("channel_0", "channel_1")
    for case in written.cases:
        old = tmp_path / "data" / case.class_name / f"{case.name}.mha"
        both = np.concatenate([read_volume(file).array for file in case.images])
        np.testing.assert_array_equal(both, read_volume(old).array)
        mask = read_labels(old.with_name(f"{case.name}_seg.mha")).array
        np.testing.assert_array_equal(
            read_volume(case.label).array, np.select([mask == 7, mask == 300], [1, 2])
        )


def test_a_case_without_mask_keeps_its_class_and_side_and_stays_out_of_nnunets_folds(
    tree, tmp_path
):
    for side, name in (("train", "quiz_1_004"), ("validation", "quiz_1_014")):
        (tree / side / "subtype1" / f"{name}.nii.gz").unlink()
    (tree / "train" / "subtype2" / "quiz_2_009_0000.nii.gz").unlink()
    done = import_class_folders(tree, tmp_path / "raw")
    assert (done.unlabelled, done.masks_alone) == (2, 1)
    written = load_dataset(tmp_path / "raw")
    assert meaning(written) == meaning(load_dataset(tree))
    (fold,) = read_json(tmp_path / "raw" / "splits_final.json")
    assert not {"quiz_1_004", "quiz_1_014"} & {*fold["train"], *fold["val"]}
    assert (tmp_path / "raw" / "imagesTs" / "quiz_1_004_0000.nii.gz").exists()


# --- whole or not at all
KILLED_IMPORT = """
import os, sys
from pathlib import Path
from trivox.importing.class_folders import import_class_folders

def some(steps, total):
    for i, step in enumerate(steps):
        yield step
        if i == 6:
            os.kill(os.getpid(), 9)

import_class_folders(Path(sys.argv[1]), Path(sys.argv[2]), progress=some)
"""


def test_a_killed_import_leaves_no_dataset_and_is_taken_up_again(
    source, tmp_path, dead_process
):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_IMPORT, str(source), str(tmp_path / "raw")],
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    partial = tmp_path / ".raw.partial"
    assert not (tmp_path / "raw").exists()
    (partial / "imagesTr" / f".tmp-{dead_process}-half.nii.gz").write_bytes(b"half")
    stamps = {path: path.stat().st_mtime_ns for path in partial.rglob("quiz*.nii.gz")}
    assert len(stamps) == 7
    steps = []
    import_class_folders(
        source,
        tmp_path / "raw",
        progress=lambda todo, total: steps.extend(todo) or todo,
    )
    assert len(steps) == 16 * 2 + 2 - 7
    assert not partial.exists()
    assert not [*(tmp_path / "raw").rglob(".tmp-*")]
    for path, stamp in stamps.items():
        assert (
            tmp_path / "raw" / path.relative_to(partial)
        ).stat().st_mtime_ns == stamp
    import_class_folders(source, tmp_path / "clean")
    assert files_in(tmp_path / "clean") == files_in(tmp_path / "raw")


def test_a_finished_import_is_kept_and_another_is_not_overwritten(tree, tmp_path):
    import_class_folders(tree, tmp_path / "raw", labels=NAMES)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "raw").rglob("*")}
    time.sleep(0.01)
    assert import_class_folders(tree, tmp_path / "raw", labels=NAMES).cases == 18
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "raw").rglob("*")
    } == before
    for changed in (
        {"labels": {"organ": 1, "lesion": 2}},
        {"labels": NAMES, "channels": ["CT"]},
    ):
        with pytest.raises(DataError, match="raw: exists and is no import of"):
            import_class_folders(tree, tmp_path / "raw", **changed)
    os.utime(tree / "test" / "quiz_900_0000.nii.gz")
    with pytest.raises(DataError, match="raw: exists and is no import of"):
        import_class_folders(tree, tmp_path / "raw", labels=NAMES)
    with pytest.raises(DataError, match="lies inside"):
        import_class_folders(tree, tree / "raw")


# --- what cannot be imported
def spoil_mask(tree, values):
    write_mask(tree / "train" / "subtype0" / "quiz_0_002.nii.gz", values)


def shift_mask(tree):
    file = tree / "train" / "subtype0" / "quiz_0_002.nii.gz"
    write_volume(file, Volume(read_volume(file).array, affine_from_spacing((2, 1, 1))))


def cut(tree):
    file = tree / "train" / "subtype0" / "quiz_0_002_0000.nii.gz"
    file.write_bytes(file.read_bytes()[:300])


SPOILED = {
    "fraction": (
        lambda tree: spoil_mask(tree, (1.4, 2)),
        LabelError,
        "quiz_0_002.*1.4",
    ),
    "stranger": (
        lambda tree: spoil_mask(tree, (1, 3)),
        LabelError,
        r"quiz_0_002\.nii\.gz: label values \[3\]",
    ),
    "shifted": (shift_mask, GeometryError, "quiz_0_002.*image and mask: grids lie"),
    "damaged": (cut, FormatError, "quiz_0_002"),
    "channels": (
        lambda tree: write_image(
            tree / "train" / "subtype0" / "quiz_0_002_0001.nii.gz"
        ),
        DataError,
        "quiz_0_002: 2 channels, the dataset has 1",
    ),
    "empty": (
        lambda tree: (tree / "train" / "subtype9").mkdir(),
        DataError,
        "class 'subtype9' has no training case",
    ),
    "twice": (
        lambda tree: write_pair(tree / "train" / "subtype0", "quiz_0_013"),
        DataError,
        "quiz_0_013: 2 cases have this name",
    ),
    "wrong": (
        lambda tree: write_pair(tree / "train" / "subtype0", "quiz_2_777"),
        DataError,
        "its name says 'subtype2'",
    ),
}


@pytest.mark.parametrize("defect", SPOILED)
def test_a_case_that_does_not_fit_is_named(tree, tmp_path, defect):
    spoil, kind, complaint = SPOILED[defect]
    spoil(tree)
    with pytest.raises(kind, match=complaint) as caught:
        import_class_folders(tree, tmp_path / "raw", labels=NAMES)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "raw").exists()


def test_sources_and_settings_that_cannot_be_meant(source, tmp_path, monkeypatch):
    for given, options, kind, complaint in (
        (tmp_path / "nowhere", {}, FormatError, "not found"),
        (
            source / "test",
            {},
            FormatError,
            "holds no class folders; expected are train/CLASS",
        ),
        (
            source,
            {"to": "msd"},
            RecipeError,
            "format 'msd' does not exist; choose one of nnunet",
        ),
        (source, {"channels": ["CT", "MR"]}, DataError, "1 channels, named are"),
        (source, {"labels": {"a": 1, "b": 1}}, LabelError, "--labels: .*differ"),
    ):
        with pytest.raises(kind, match=complaint):
            import_class_folders(given, tmp_path / "raw", **options)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(class_folders_import.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"raw: .* GB needed"):
        import_class_folders(source, tmp_path / "raw")


# --- the command
def test_the_command_says_what_it_did(tree, tmp_path):
    def run(*arguments, code=0):
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert result.exit_code == code, result.output
        return result.output

    (tree / "train" / "subtype1" / "quiz_1_004.nii.gz").unlink()
    options = ("--labels", "pancreas=1", "--labels", "lesion=2", "--channels", "CT")
    text = run("import", "class-folders", tree, "--out", tmp_path / "raw", *options)
    assert "18 cases, 2 of them test cases, 4 to validate on" in text
    assert "4 subtype0, 7 subtype1, 5 subtype2" in text
    assert "note: 1 cases without mask" in text
    assert load_dataset(tmp_path / "raw").labels.labels == NAMES
    text = run("check", tmp_path / "raw")
    assert "classes: 4 subtype0, 7 subtype1, 5 subtype2, 2 not known" in text
    (tmp_path / "grades.csv").write_text(
        "case,grade\nquiz_0_001,high\nquiz_0_002,low\nquiz_1_004,low\n"
    )
    assert "classes: 1 high, 2 low, 15 not known" in run(
        "check", tree, "--classes", tmp_path / "grades.csv"
    )
    for wrong in ("pancreas", "=1", "pancreas=x"):
        assert "give each name once" in run(
            "import", "class-folders", tree, "--out", "x", "--labels", wrong, code=2
        )
