"""Preprocessing: resumable, killable, and the case that fails is named while the others
finish.
"""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from trivox.datasets.reading import read_case
from trivox.errors import DataError, PlanError, ResourceError
from trivox.files import read_json
from trivox.locks import READ
from trivox.planning.plan import ImagePlan
from trivox.preparation.grid import prepare
from trivox.preparation.preprocess import open_store, preprocess

KILLED = -signal.SIGKILL if hasattr(signal, "SIGKILL") else 1  # 1: Windows


def prepared_names(store, cases):
    return [case.name for case in cases if store.has(case.name)]


def files(folder):
    """All but the mark of whoever reads them."""
    return [path for path in folder.iterdir() if not path.name.startswith(READ)]


def stamps(folder):
    return {path.name: path.stat().st_mtime_ns for path in files(folder)}


@pytest.fixture
def prepared(phantoms, plan, tmp_path):
    return preprocess(phantoms, plan, tmp_path / "store", workers=2)


def test_every_training_case_is_stored_as_the_plan_prepares_it(
    phantoms, plan, prepared
):
    assert all(prepared.has(case.name) for case in phantoms.cases)
    for case in phantoms.cases:
        expected = prepare(read_case(case, channels=2, labels=plan.labels), plan)
        image, label = prepared.read(case.name)
        np.testing.assert_array_equal(image, expected.image.numpy())
        np.testing.assert_array_equal(label, expected.label.numpy())
        assert prepared.facts(case.name)["patient"] == case.patient


def test_a_second_run_keeps_finished_cases_untouched(phantoms, plan, prepared):
    before = stamps(prepared.folder)
    preprocess(phantoms, plan, prepared.folder)
    assert stamps(prepared.folder) == before


def test_a_second_run_redoes_only_what_is_missing(phantoms, plan, prepared):
    image, _ = prepared.read("phantom_001")
    (prepared.folder / "phantom_001.json").unlink()
    before = stamps(prepared.folder)
    again = preprocess(phantoms, plan, prepared.folder)
    after = stamps(prepared.folder)
    changed = {name.split(".")[0] for name in after if after[name] != before.get(name)}
    assert changed == {"phantom_001"}
    np.testing.assert_array_equal(again.read("phantom_001")[0], image)


def test_another_plan_empties_the_store(plan, prepared):
    other = plan.model_copy(update={"spacing": (9.0, 9.0, 9.0)})
    store = open_store(prepared.folder, other)
    assert not store.has("phantom_000")
    assert files(store.folder) == [store.key_file]
    assert read_json(store.key_file) == other.preparation_key


def test_emptying_a_store_leaves_foreign_files_alone(plan, prepared):
    (prepared.folder / "notes.txt").write_text("mine")
    other = plan.model_copy(update={"spacing": (9.0, 9.0, 9.0)})
    store = open_store(prepared.folder, other)
    names = sorted(path.name for path in files(store.folder))
    assert names == ["notes.txt", store.key_file.name]


def test_a_store_that_belongs_to_someone_else_is_never_emptied(plan, prepared):
    with pytest.raises(PlanError, match="another plan"):
        open_store(
            prepared.folder,
            plan.model_copy(update={"spacing": (9.0, 9.0, 9.0)}),
            replace=False,
        )
    assert prepared.has("phantom_000")


def test_a_plan_that_differs_in_learning_only_keeps_the_store(plan, prepared):
    other = plan.model_copy(update={"batch_size": 9})
    assert open_store(prepared.folder, other).has("phantom_000")


def with_broken_case(phantoms, folder):
    (folder / "broken.nii.gz").write_bytes(b"no image")
    first, *rest = phantoms.cases
    broken = first.model_copy(update={"images": (folder / "broken.nii.gz",)})
    return phantoms.model_copy(update={"cases": (broken, *rest)})


@pytest.mark.parametrize("workers", [1, 3])
def test_a_failing_case_is_named_and_the_others_finish(
    phantoms, plan, tmp_path, workers
):
    dataset = with_broken_case(phantoms, tmp_path)
    failed = r"1 of 4 cases failed: phantom_000.*broken\.nii\.gz"
    with pytest.raises(DataError, match=failed):
        preprocess(dataset, plan, tmp_path / "store", workers=workers)
    store = open_store(tmp_path / "store", plan)
    others = [case.name for case in dataset.cases[1:]]
    assert prepared_names(store, dataset.cases) == others
    healed = preprocess(phantoms, plan, tmp_path / "store", workers=workers)
    assert len(prepared_names(healed, phantoms.cases)) == 4


def test_a_full_disk_is_reported_and_a_later_run_completes(
    phantoms, plan, tmp_path, monkeypatch
):
    def full(path, array):
        raise ResourceError(f"{path}: cannot be written (No space left on device)")

    with monkeypatch.context() as patched:
        patched.setattr("trivox.preparation.store.write_array", full)
        failed = r"4 of 4 cases failed.*No space left.*and 1 more"
        with pytest.raises(DataError, match=failed):
            preprocess(phantoms, plan, tmp_path / "store")
    store = preprocess(phantoms, plan, tmp_path / "store")
    assert len(prepared_names(store, phantoms.cases)) == 4


def test_a_plan_of_images_leaves_label_files_alone(phantoms, plan, tmp_path):
    facts = dict(plan)
    images = ImagePlan(**{name: facts[name] for name in ImagePlan.model_fields})
    name = phantoms.cases[0].name
    unread = phantoms.cases[0].model_copy(update={"label": tmp_path / "missing.nii.gz"})
    dataset = phantoms.model_copy(update={"cases": (unread,)})
    image, label = preprocess(dataset, images, tmp_path / "store").read(name)
    expected, _ = preprocess(phantoms, plan, tmp_path / "labelled").read(name)
    np.testing.assert_array_equal(image, expected)
    assert not np.asarray(label).any()


def test_progress_sees_every_case_once(phantoms, plan, tmp_path):
    seen = []

    def progress(names, total):
        for name in names:
            seen.append((name, total))
            yield name

    preprocess(phantoms, plan, tmp_path / "store", progress=progress)
    assert sorted(seen) == [(case.name, 4) for case in phantoms.cases]


CHILD = """
import os, sys, time
from pathlib import Path
from trivox.datasets.layouts.choice import load_dataset
from trivox.planning.plan import read_plan
from trivox.preparation import preprocess as room
from trivox.preparation import store

real = store.write_array
def slow(path, array):  # half of the file is there for a while: where the parent kills
    path.with_name(".tmp-0-" + path.name).write_bytes(b"half")
    os.write(1, b"writing\\n")  # in one piece: two threads write
    time.sleep(0.05)
    real(path, array)
store.write_array = slow
dataset, plan, folder = (Path(argument) for argument in sys.argv[1:])
room.preprocess(load_dataset(dataset), read_plan(plan), folder, workers=2)
"""


def test_a_killed_process_leaves_nothing_half_written_and_the_rerun_completes(
    phantoms, plan, tmp_path
):
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    folder = tmp_path / "store"
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(phantoms.root),
        str(tmp_path / "plan.json"),
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for _ in range(5):  # somewhere in the second case
            assert child.stdout.readline().startswith("writing")
        time.sleep(0.02)
        child.kill()
        child.wait()
    assert child.returncode == KILLED
    reference = preprocess(phantoms, plan, tmp_path / "reference")
    store = open_store(folder, plan)
    finished = prepared_names(store, phantoms.cases)
    assert len(finished) < 4
    assert not list(folder.glob(".tmp-*"))  # opening swept them up
    for name in finished:
        np.testing.assert_array_equal(store.read(name)[0], reference.read(name)[0])
    store = preprocess(phantoms, plan, folder)
    for case in phantoms.cases:
        assert store.has(case.name)
        image, label = store.read(case.name)
        whole_image, whole_label = reference.read(case.name)
        np.testing.assert_array_equal(image, whole_image)
        np.testing.assert_array_equal(label, whole_label)


def test_a_store_of_another_plan_is_refused_untouched_where_it_may_not_be_replaced(
    plan, prepared
):
    before = stamps(prepared.folder)
    with pytest.raises(PlanError, match="prepared under another plan"):
        open_store(
            prepared.folder,
            plan.model_copy(update={"spacing": (9.0, 9.0, 9.0)}),
            replace=False,
        )
    assert stamps(prepared.folder) == before
    assert open_store(prepared.folder, plan, replace=False).has("phantom_000")


def test_emptying_a_store_leaves_files_of_others_alone(plan, prepared):
    (prepared.folder / "notes.txt").write_text("mine")
    open_store(prepared.folder, plan.model_copy(update={"spacing": (9.0, 9.0, 9.0)}))
    assert (prepared.folder / "notes.txt").read_text() == "mine"
