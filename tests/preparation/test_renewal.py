"""A prepared case belongs to its files: what changed is prepared again, what was only
touched is not.
"""

import gc
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from trivox.datasets.labels import IGNORED, LabelScheme
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import BusyError
from trivox.files import read_json, write_json
from trivox.locks import READ
from trivox.preparation.exam_store import ExamStore, prepare_exams
from trivox.preparation.preprocess import preprocess
from trivox.preparation.renewal import release
from trivox.preparation.store import Store
from trivox.volumes.formats import read_volume, write_volume

LINE = "1 of {total} prepared cases no longer matches its files and is prepared again: "


def stamps(folder):
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    return {path.name: path.stat().st_mtime_ns for path in files}


def case_of(name):
    return name.split(".")[0]


def written_anew(folder, before):
    """Cases of whose arrays any was written or removed."""
    after = stamps(folder)
    names = before.keys() | after.keys()
    return {case_of(name) for name in names if before.get(name) != after.get(name)}


def turned(path):
    """The same file with its voxels in another order."""
    volume = read_volume(path)
    write_volume(path, volume.with_array(volume.array[:, ::-1].copy()))


@pytest.fixture
def data(phantoms, tmp_path):
    """A dataset of which files may change."""
    return load_dataset(shutil.copytree(phantoms.root, tmp_path / "data"))


@pytest.fixture
def prepared(data, plan, tmp_path):
    """The folder of its prepared cases."""
    store = preprocess(data, plan, tmp_path / "store")
    release(store)
    return store.folder


@pytest.mark.parametrize("what", ["image", "second image", "label"])
def test_a_case_of_which_a_file_changed_is_prepared_again_and_no_other(
    data, plan, prepared, what
):
    case = data.cases[1]
    files = dict(zip(["image", "second image"], case.images, strict=True))
    before = stamps(prepared)
    old = [np.array(array) for array in Store(prepared).read(case.name)]
    turned((files | {"label": case.label})[what])
    lines = []
    store = preprocess(data, plan, prepared, say=lines.append)
    assert lines == [LINE.format(total=4) + case.name]
    assert written_anew(prepared, before) == {case.name}
    same = [
        np.array_equal(*pair) for pair in zip(old, store.read(case.name), strict=True)
    ]
    assert same == [what == "label", what != "label"]
    assert preprocess(data, plan, prepared, say=lines.append)
    assert len(lines) == 1


READER = """
import sys
from pathlib import Path
from trivox.locks import reading
with reading(Path(sys.argv[1]), "train", [sys.argv[2]]):
    print("ready", flush=True)
    input()
"""


@pytest.mark.parametrize("change", ["a file", "the plan", "the dataset"])
def test_what_another_training_reads_is_never_replaced_under_it(
    data, plan, prepared, change
):
    names = [case.name for case in data.cases]
    arguments = [sys.executable, "-c", READER, str(prepared), names[1]]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    if change == "a file":
        turned(data.cases[1].label)
    if change == "the plan":
        plan = plan.model_copy(update={"spacing": (3.0, 3.0, 3.0)})
    if change == "the dataset":
        data = data.model_copy(update={"cases": data.cases[2:]})
    before = stamps(prepared)
    with subprocess.Popen(arguments, **pipes) as child:
        assert child.stdout.readline() == "ready\n"
        match = f"{names[1]} would be replaced, but is being read by .*{child.pid}"
        with pytest.raises(BusyError, match=match):
            preprocess(data, plan, prepared)
        assert stamps(prepared) == before
        child.communicate("\n")
    preprocess(data, plan, prepared)
    assert stamps(prepared) != before


def test_a_store_in_use_keeps_its_cases_and_lets_others_read(data, plan, prepared):
    first = preprocess(data, plan, prepared)
    second = preprocess(data, plan, prepared)
    assert len([*prepared.glob(f"{READ}*")]) == 2
    release(first)
    release(first)
    assert len([*prepared.glob(f"{READ}*")]) == 1
    del second
    gc.collect()
    assert not [*prepared.glob(f"{READ}*")]


def test_a_file_that_was_only_touched_changes_nothing(data, plan, prepared):
    before = stamps(prepared)
    for case in data.cases:
        os.utime(case.label)
        shutil.copyfile(case.images[0], case.images[0].with_suffix(".copy"))
        case.images[0].with_suffix(".copy").replace(case.images[0])
    lines = []
    preprocess(data, plan, prepared, say=lines.append)
    assert (stamps(prepared), lines) == (before, [])


def test_labels_that_mean_something_else_are_prepared_again(data, plan, prepared):
    values = plan.labels.labels
    fewer = dict(sorted(values.items(), key=lambda item: item[1])[:1])
    ignored = LabelScheme(labels=fewer, ignore=max(values.values()))
    lines = []
    other = plan.model_copy(update={"labels": ignored})
    store = preprocess(data, other, prepared, say=lines.append)
    assert lines[0].startswith("4 cases were prepared under another plan and removed")
    assert store.read(data.cases[0].name)[1].min() == IGNORED


@pytest.mark.parametrize("replace", [True, False])
def test_a_case_that_is_gone_is_removed_from_a_store_of_its_own(
    data, plan, prepared, replace
):
    """A folder that was prepared elsewhere may serve other datasets as well."""
    fewer = data.model_copy(update={"cases": data.cases[1:]})
    (prepared / "notes.txt").write_text("of a person")
    before = stamps(prepared)
    lines = []
    preprocess(fewer, plan, prepared, replace=replace, say=lines.append)
    gone = data.cases[0].name
    assert written_anew(prepared, before) == ({gone} if replace else set())
    expected = [f"1 prepared case is not in the dataset and removed: {gone}"]
    assert lines == (expected if replace else [])
    assert (prepared / "notes.txt").exists()


def test_another_dataset_of_the_same_names_is_noticed(data, plan, prepared, tmp_path):
    other = load_dataset(shutil.copytree(data.root, tmp_path / "other"))
    lines = []
    preprocess(other, plan, prepared, say=lines.append)
    assert lines == []  # the same files in another place
    for case in other.cases:
        turned(case.images[0])
    store = preprocess(other, plan, prepared, say=lines.append)
    assert "4 of 4 prepared cases no longer match their files and are" in lines[0]
    fresh = preprocess(other, plan, tmp_path / "fresh")
    for case in other.cases:
        for one, two in zip(store.read(case.name), fresh.read(case.name), strict=True):
            assert np.array_equal(one, two)


def test_cases_of_an_earlier_version_are_prepared_again(data, plan, prepared):
    file = prepared / f"{data.cases[0].name}.json"
    write_json(file, {k: v for k, v in read_json(file).items() if k != "content"})
    lines = []
    preprocess(data, plan, prepared, say=lines.append)
    assert lines == [
        "1 of 4 prepared cases does not say what it was made from and is prepared "
        f"again: {data.cases[0].name}"
    ]


def test_what_was_prepared_under_another_plan_is_removed_aloud(data, plan, prepared):
    other = plan.model_copy(update={"spacing": (9.0, 9.0, 9.0)})
    lines = []
    preprocess(data, other, prepared, say=lines.append)
    assert lines[0].startswith("4 cases were prepared under another plan and removed")


def test_a_case_that_fails_now_does_not_stand_there_as_it_was(data, plan, prepared):
    case = data.cases[0]
    case.images[0].write_bytes(b"no image")
    with pytest.raises(Exception, match=case.images[0].name):
        preprocess(data, plan, prepared)
    assert not Store(prepared).has(case.name)


@pytest.mark.parametrize("what", ["views", "geometry", "volume"])
def test_exams_belong_to_their_files_too(xray_data, xray_plan, tmp_path, what):
    data = load_dataset(shutil.copytree(xray_data, tmp_path / "data"))
    store = prepare_exams(data, xray_plan, tmp_path / "store")
    before = stamps(store.folder)
    lines = []
    prepare_exams(data, xray_plan, store.folder, say=lines.append)
    assert (stamps(store.folder), lines) == (before, [])
    case = data.training_cases[0]
    if what == "views":
        images = np.load(case.images[0])["views"]
        np.savez_compressed(case.images[0], views=images[:, ::-1])
    if what == "geometry":
        content = read_json(case.geometry)
        content["views"][0]["primary_degrees"] += 5.0
        write_json(case.geometry, content)
    if what == "volume":
        turned(case.volume)
    prepare_exams(data, xray_plan, store.folder, say=lines.append)
    assert lines == [LINE.format(total=5) + case.name]
    assert written_anew(store.folder, before) == {case.name}
    fresh = prepare_exams(data, xray_plan, tmp_path / "fresh")
    assert np.array_equal(fresh.volume(case.name), store.volume(case.name))
    ours, theirs = (each.views(case.name) for each in (store, fresh))
    assert np.array_equal(ours.images, theirs.images)
    assert np.array_equal(ours.geometry.primary, theirs.geometry.primary)


def test_exams_in_other_units_are_prepared_again(xray_data, xray_plan, tmp_path):
    data = load_dataset(xray_data)
    prepare_exams(data, xray_plan, tmp_path)
    name = data.training_cases[0].name
    before = ExamStore(tmp_path).views(name).images
    other = xray_plan.model_copy(update={"water_per_mm": 2 * xray_plan.water_per_mm})
    after = prepare_exams(data, other, tmp_path).views(name).images
    assert np.allclose(after, 2 * before, rtol=1e-4)


def test_of_two_writers_of_one_folder_the_second_waits_and_has_nothing_to_do(
    data, plan, tmp_path
):
    """Threads: each opens the lock anew, as processes do."""
    folder = tmp_path / "store"
    seen = {"first": [], "second": []}
    lines = []

    def progress(who):
        def shown(names, total):
            if who == "first":
                second.start()
                while not lines:
                    time.sleep(0.01)
            seen[who] = [total, *names]
            return ()

        return shown

    def prepare_too():
        preprocess(data, plan, folder, progress=progress("second"), say=lines.append)

    second = threading.Thread(target=prepare_too)
    preprocess(data, plan, folder, progress=progress("first"))
    second.join()
    assert seen["first"] == [4, *(case.name for case in data.cases)]
    assert seen["second"] == [0]
    assert len(lines) == 1
    assert "waiting for it" in lines[0]
    gc.collect()
    assert not list(folder.glob(".*"))
