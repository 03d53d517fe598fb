"""`trivox import brats`: downloads become datasets, whole or not at all, and nnU-Net
reads the same regions.
"""

import json
import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

from trivox.datasets.class_tables import with_classes
from trivox.datasets.layouts.brats import FAMILIES, family_of, patient_of
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.phantoms.brains import BrainPhantomSettings, write_brain_phantoms
from trivox.datasets.reading import read_case
from trivox.errors import (
    DataError,
    FormatError,
    LabelError,
    RecipeError,
    ResourceError,
)
from trivox.importing import brats_archive
from trivox.importing.brats_archive import import_brats
from trivox.volumes.formats import read_volume, write_volume
from trivox.volumes.volume import Volume

SHAPE = (16, 20, 18)


def brains(folder, family="2020", **settings):
    times = 2 if family in ("2023", "post-treatment") else 1
    chosen = {
        "cases": 4,
        "test_cases": 2,
        "timepoints": times,
        "shape": SHAPE,
        "family": family,
        "seed": 5,
    }
    return write_brain_phantoms(folder, BrainPhantomSettings(**{**chosen, **settings}))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return brains(tmp_path_factory.mktemp("source") / "MICCAI_BraTS2020_TrainingData")


def files_in(folder):
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    }


def voxels(dataset):
    """Voxels of each case as later rooms see them; label maps as region masks, so that
    values do not matter.
    """
    labels = dataset.labels
    regions = dict(zip(labels.targets, labels.region_table(), strict=True))
    content = {}
    for case in dataset.cases:
        read = read_case(case, channels=4, labels=labels)
        masks = None
        if read.label is not None:
            masks = {name: mask[read.label] for name, mask in regions.items()}
        content[case.name] = (case.patient, case.split, read.image, masks)
    return content


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar", "folder"])
def test_every_archive_becomes_the_same_dataset(tmp_path, source, kind):
    given = source
    if kind != "folder":
        given = shutil.make_archive(
            tmp_path / "download", kind, source.parent, source.name
        )
    done = import_brats(tmp_path / given, tmp_path / "out")
    assert (done.cases, done.held_out, done.unlabelled, done.incomplete) == (4, 2, 0, 0)
    assert done.families == ("BraTS 2017-2020",)
    assert {f for f in files_in(tmp_path / "out") if f != "import.json"} == {
        file.replace("MICCAI_BraTS2020_TrainingData/", "") for file in files_in(source)
    }
    np.testing.assert_equal(
        voxels(load_dataset(tmp_path / "out")), voxels(load_dataset(source))
    )
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nnunet_reads_back_the_same_regions_patients_and_images(
    tmp_path, family, suffix
):
    source = brains(tmp_path / "source", family, suffix=suffix)
    import_brats(source, tmp_path / "raw", to="nnunet")
    original = load_dataset(source)
    exported = load_dataset(tmp_path / "raw")
    assert (exported.layout, exported.channels) == ("nnunet", original.channels)
    np.testing.assert_equal(voxels(exported), voxels(original))
    cavity = {"RC": 4} if family == "post-treatment" else {}
    assert exported.labels.labels == {"NCR": 1, "ED": 2, "ET": 3, **cavity}
    assert exported.labels.nested
    content = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    assert content["labels"]["TC"] == [1, 3]
    assert content["regions_class_order"] == [2, 1, 3, *cavity.values()]
    assert content["numTraining"] == 2
    assert ("ET was 4" in content["description"]) == (family in ("2020", "2021"))
    assert {case.name: case.patient for case in exported.cases} == {
        c.name: patient_of(c.name) for c in exported.cases
    }


def test_families_that_contradict_each_other_meet_in_nnunet_values(tmp_path):
    for family in FAMILIES:
        brains(tmp_path / "source" / family, family, cases=2, test_cases=0)
    with pytest.raises(LabelError, match="mixes"):
        load_dataset(tmp_path / "source")
    import_brats(tmp_path / "source", tmp_path / "raw", to="nnunet")
    exported = load_dataset(tmp_path / "raw")
    there = voxels(exported)
    for title, family in FAMILIES.items():
        here = voxels(load_dataset(tmp_path / "source" / title))
        assert here.keys() == {name for name in there if family_of(name) is family}
        for name, (*_, masks) in here.items():
            for region, mask in masks.items():
                np.testing.assert_array_equal(mask, there[name][3][region])


def test_nnunet_puts_cases_without_label_map_among_the_test_images(tmp_path, source):
    given = shutil.copytree(source, tmp_path / "given")
    next(given.glob("BraTS20_Training_001/*_seg.nii.gz")).unlink()
    done = import_brats(given, tmp_path / "raw", to="nnunet")
    assert (done.unlabelled, done.held_out) == (1, 2)
    assert len([*(tmp_path / "raw" / "imagesTr").iterdir()]) == 4
    assert len([*(tmp_path / "raw" / "imagesTs").iterdir()]) == 12


def test_a_case_without_a_sequence_is_imported_but_is_nothing_for_nnunet(tmp_path):
    brains(tmp_path / "source", missing=((1, "T2"),))
    with pytest.raises(
        DataError, match="BraTS20_Training_002 has no T2, and nnU-Net needs all"
    ):
        import_brats(tmp_path / "source", tmp_path / "raw", to="nnunet")
    assert not (tmp_path / "raw").exists()
    assert import_brats(tmp_path / "source", tmp_path / "out").incomplete == 1
    assert [case.absent for case in load_dataset(tmp_path / "out").cases] == [
        (),
        (2,),
        (),
        (),
    ]


def test_the_odd_label_map_of_kaggle_gets_its_name(tmp_path, source):
    given = shutil.copytree(source, tmp_path / "given")
    odd = next(given.glob("BraTS20_Training_002/*_seg.nii.gz"))
    write_volume(odd.with_name("W39_1998.09.19_Segm.nii"), read_volume(odd))
    odd.unlink()
    import_brats(tmp_path / "given", tmp_path / "out")
    assert (tmp_path / "out" / "BraTS20_Training_002" / odd.name).exists()
    np.testing.assert_equal(
        voxels(load_dataset(tmp_path / "out")), voxels(load_dataset(source))
    )


# --- whole or not at all
KILLED_IMPORT = """
import os, sys
from pathlib import Path
from trivox.importing.brats_archive import import_brats

def some(steps, total):
    for i, step in enumerate(steps):
        yield step
        if i == 6:
            os.kill(os.getpid(), 9)

import_brats(Path(sys.argv[1]), Path(sys.argv[2]), to="nnunet", progress=some)
"""


def test_nothing_but_brats_images_leaves_the_archive(tmp_path, source):
    for name in (
        "run.sh",
        "BraTS20_Training_001/evil.py",
        "__MACOSX/._BraTS20_Training_001_t1.nii.gz",
        "big_t1.nii",
    ):
        path = tmp_path / "given" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"junk")
    shutil.copytree(source, tmp_path / "given", dirs_exist_ok=True)
    import_brats(tmp_path / "given", tmp_path / "out")
    assert {f for f in files_in(tmp_path / "out") if f != "import.json"} == files_in(
        source
    )


@pytest.mark.parametrize(
    "name", ["../../BraTS20_Training_009_t1.nii", "/tmp/BraTS20_Training_009_t1.nii"]
)
def test_a_malicious_archive_writes_nothing(tmp_path, source, name):
    given = shutil.make_archive(tmp_path / "in" / "download", "zip", source)
    with zipfile.ZipFile(given, "a") as archive:
        archive.writestr(name, b"evil")
    before = files_in(tmp_path)
    with pytest.raises(DataError, match="points out of the archive"):
        import_brats(tmp_path / given, tmp_path / "in" / "out")
    assert files_in(tmp_path) == before


def test_a_killed_import_leaves_no_dataset_and_is_taken_up_again(
    tmp_path, source, dead_process
):
    done = subprocess.run(
        [sys.executable, "-c", KILLED_IMPORT, str(source), str(tmp_path / "out")],
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert not (tmp_path / "out").exists()
    partial = tmp_path / ".out.partial"
    (partial / "imagesTr" / f".tmp-{dead_process}-half.nii.gz").write_bytes(b"half")
    stamps = {path: path.stat().st_mtime_ns for path in partial.rglob("*_0*.nii.gz")}
    assert stamps
    for path in stamps:
        read_volume(path)  # each file is whole
    steps = []
    import_brats(
        source,
        tmp_path / "out",
        to="nnunet",
        progress=lambda todo, total: steps.extend(todo) or todo,
    )
    assert len(steps) == 21 - 7  # 20 files of the cases, and the note beside them
    assert not partial.exists()
    assert not [*(tmp_path / "out").rglob(".tmp-*")]
    for path, stamp in stamps.items():
        assert (
            tmp_path / "out" / path.relative_to(partial)
        ).stat().st_mtime_ns == stamp
    import_brats(source, tmp_path / "clean", to="nnunet")
    assert files_in(tmp_path / "clean") == files_in(tmp_path / "out")
    np.testing.assert_equal(
        voxels(load_dataset(tmp_path / "clean")), voxels(load_dataset(tmp_path / "out"))
    )


def test_an_interrupted_import_of_something_else_is_not_mixed_in(tmp_path, source):
    def stop(steps, total):
        yield steps[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_brats(
            brains(tmp_path / "other", "2021"), tmp_path / "out", progress=stop
        )
    assert [*(tmp_path / ".out.partial").rglob("*.nii.gz")]
    import_brats(source, tmp_path / "out")
    assert {f for f in files_in(tmp_path / "out") if f != "import.json"} == files_in(
        source
    )


def test_a_finished_import_is_kept_and_another_is_not_overwritten(tmp_path, source):
    import_brats(source, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    time.sleep(0.01)
    assert import_brats(source, tmp_path / "out").cases == 4
    assert {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")
    } == before
    with pytest.raises(DataError, match="out: exists and is no import of"):
        import_brats(source, tmp_path / "out", to="nnunet")
    with pytest.raises(DataError, match="lies inside"):
        import_brats(source, source / "out")
    (tmp_path / "empty").mkdir()
    assert import_brats(source, tmp_path / "empty").cases == 4


def test_a_source_that_changed_is_not_taken_for_imported(tmp_path):
    source = brains(tmp_path / "source", suffix=".nii")
    import_brats(source, tmp_path / "out")
    label = next(source.rglob("*_seg.nii"))
    label.write_bytes(label.read_bytes()[:-1] + b"\2")  # as long as before
    with pytest.raises(DataError, match="exists and is no import of"):
        import_brats(source, tmp_path / "out")


# --- what cannot be imported
def test_errors_say_what_and_where(tmp_path, source, monkeypatch):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "scan_t1.nii").write_bytes(b"x")
    with pytest.raises(
        DataError,
        match=r"bare: no BraTS case inside; known are names like BraTS20_Training_001",
    ):
        import_brats(tmp_path / "bare", tmp_path / "out")
    with pytest.raises(
        RecipeError, match="format 'zip' does not exist; choose one of brats, nnunet"
    ):
        import_brats(source, tmp_path / "out", to="zip")
    with pytest.raises(FormatError, match="not found"):
        import_brats(tmp_path / "nowhere.tar", tmp_path / "out")
    given = tmp_path / shutil.make_archive(tmp_path / "download", "gztar", source)
    given.write_bytes(given.read_bytes()[:-2000])
    with pytest.raises(FormatError, match="damaged, truncated"):
        import_brats(given, tmp_path / "out")
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(brats_archive.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"out: .* GB needed"):
        import_brats(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_on_the_way_is_one_clear_line(
    tmp_path, source, monkeypatch
):
    def full(stream, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(brats_archive.shutil, "copyfileobj", full)
    with pytest.raises(
        ResourceError, match=r"cannot be written \(No space left on device\)"
    ):
        import_brats(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_label_values_of_another_family_are_named_when_they_are_translated(
    tmp_path, source
):
    given = shutil.copytree(source, tmp_path / "given")
    label = next(given.glob("BraTS20_Training_001/*_seg.nii.gz"))
    volume = read_volume(label)
    write_volume(
        label, Volume(np.where(volume.array == 4, 3, volume.array), volume.affine)
    )
    with pytest.raises(
        LabelError,
        match=r"BraTS20_Training_001_seg\.nii\.gz: label values \[3\] are not declared",
    ):
        import_brats(given, tmp_path / "raw", to="nnunet")
    assert not (tmp_path / "raw").exists()


# --- tables beside the cases
@pytest.mark.parametrize("to", ["brats", "nnunet"])
@pytest.mark.parametrize("kind", ["zip", "gztar", "folder"])
def test_the_table_of_grades_comes_along_as_it_is(tmp_path, source, to, kind):
    given = shutil.copytree(source, tmp_path / "given" / "release")
    names = [case.name for case in load_dataset(source).training_cases]
    text = "Grade,BraTS_2020_subject_ID\n" + "".join(
        f"{g},{n}\n" for g, n in zip(("HGG", "LGG"), names, strict=True)
    )
    (given / "name_mapping.csv").write_text(text)
    (given / "notes.csv").write_text("x\n")
    if kind != "folder":
        given = tmp_path / shutil.make_archive(
            tmp_path / "download", kind, tmp_path / "given"
        )
    import_brats(given, tmp_path / "out", to=to)
    assert (tmp_path / "out" / "name_mapping.csv").read_text() == text
    assert not (tmp_path / "out" / "notes.csv").exists()
    graded = with_classes(
        load_dataset(tmp_path / "out"), tmp_path / "out" / "name_mapping.csv"
    )
    assert [case.class_name for case in graded.training_cases] == ["HGG", "LGG"]


def test_tables_of_several_releases_do_not_overwrite_each_other(tmp_path):
    for family in ("2020", "2021"):
        folder = brains(tmp_path / "source" / family, family)
        (folder / "survival_info.csv").write_text(family)
    import_brats(tmp_path / "source", tmp_path / "out")
    assert {
        (tmp_path / "out" / f"{family}_survival_info.csv").read_text()
        for family in ("2020", "2021")
    } == {
        "2020",
        "2021",
    }
