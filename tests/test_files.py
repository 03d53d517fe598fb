"""Files: nothing half-written under a final name, errors that instruct."""

import errno
import json
import math
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from trivox.errors import FormatError, ResourceError
from trivox.files import (
    FORGOTTEN_SECONDS,
    atomic_path,
    read_json,
    remove_leftovers,
    replace_folder,
    surviving_folder,
    this_machine,
    whole_folder,
    write_bytes,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_written_bytes_are_read_back_and_nothing_else_is_left(tmp_path):
    write_bytes(tmp_path / "a" / "b.bin", b"\x00\xff")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"\x00\xff"
    assert names(tmp_path / "a") == ["b.bin"]


def test_a_temporary_name_is_hidden_and_keeps_all_suffixes(tmp_path):
    with atomic_path(tmp_path / "case.nii.gz") as temporary:
        assert temporary.name.startswith(".")
        assert temporary.name.endswith("case.nii.gz")
        temporary.write_text("x")


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_and_no_temporary(tmp_path, error):
    write_text(tmp_path / "a.txt", "old")

    def write():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_full_disk_is_a_resource_error_that_names_the_file(tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ResourceError, match=r"a\.bin.*No space left"):
        write_bytes(tmp_path / "a.bin", b"1")
    assert names(tmp_path) == []


def test_text_is_utf8(tmp_path):
    write_text(tmp_path / "a.txt", "Größe µ")
    assert (tmp_path / "a.txt").read_bytes() == "Größe µ".encode()


def test_json_turns_what_json_does_not_know_into_null_and_numpy_into_numbers(tmp_path):
    content = {
        1: [math.nan, math.inf, -math.inf, 1.5],
        "a": np.float32(0.5),
        "b": np.arange(3),
        "c": (np.nan, None),
    }
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert strict == {
        "1": [None, None, None, 1.5],
        "a": 0.5,
        "b": [0, 1, 2],
        "c": [None, None],
    }
    assert read_json(tmp_path / "a.json") == strict


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b""])
def test_malformed_json_is_a_format_error_that_names_the_file(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(FormatError, match=r"bad\.json"):
        read_json(tmp_path / "bad.json")


def test_missing_json_is_a_format_error_that_names_the_file(tmp_path):
    with pytest.raises(FormatError, match=r"none\.json: file not found"):
        read_json(tmp_path / "none.json")


def folder_with(path, text):
    path.mkdir()
    (path / "content").write_text(text)
    return path


def content_of(folder):
    return None if folder is None else (folder / "content").read_text()


def test_a_replaced_folder_holds_the_new_content_only(tmp_path):
    final = tmp_path / "latest"
    for text in ("one", "two", "three"):
        replace_folder(folder_with(tmp_path / "new", text), final)
        assert (content_of(final), names(tmp_path)) == (text, ["latest"])


@pytest.mark.parametrize("dies_at", [0, 1])
def test_a_crash_at_either_rename_leaves_the_old_folder_to_be_found(
    tmp_path, monkeypatch, dies_at
):
    final = folder_with(tmp_path / "latest", "old")
    renames = []
    real = Path.rename

    def rename(self, target):
        if len(renames) == dies_at:
            raise KeyboardInterrupt
        renames.append(self)
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            replace_folder(folder_with(tmp_path / "new", "new"), final)
    assert content_of(surviving_folder(final)) == "old"
    shutil.rmtree(tmp_path / "new")
    # and the next one heals everything
    replace_folder(folder_with(tmp_path / "new", "newer"), final)
    assert content_of(surviving_folder(final)) == "newer"
    assert names(tmp_path) == ["latest"]


def test_a_crash_after_the_renames_leaves_the_new_folder_to_be_found(tmp_path):
    folder_with(tmp_path / "latest.old", "old")
    latest = folder_with(tmp_path / "latest", "new")
    assert content_of(surviving_folder(latest)) == "new"


def test_somebody_s_copy_beside_a_folder_that_is_replaced_stays(tmp_path):
    latest = folder_with(tmp_path / "latest", "old")
    copy = folder_with(tmp_path / "latest.old", "a person's")
    replace_folder(folder_with(tmp_path / "new", "new"), latest)
    assert (content_of(latest), content_of(copy)) == ("new", "a person's")


def test_nothing_survives_where_nothing_was(tmp_path):
    assert surviving_folder(tmp_path / "latest") is None


def test_a_folder_with_a_read_only_file_replaces_another(tmp_path):
    folder_with(tmp_path / "new", "copied")
    (tmp_path / "new" / "content").chmod(0o400)
    replace_folder(tmp_path / "new", tmp_path / "final")
    assert content_of(tmp_path / "final") == "copied"


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    final = tmp_path / "final"
    with whole_folder(final) as folder:
        (folder / "content").write_text("whole")
    assert (content_of(final), names(tmp_path)) == ("whole", ["final"])

    def fail():
        with whole_folder(final) as folder:
            (folder / "content").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (content_of(final), names(tmp_path)) == ("whole", ["final"])


def left_by(machine, process, folder, name):
    """What a process left half written, under its name of today or of 0.1.0."""
    start = "" if machine is None else f"{machine}-"
    path = folder / f".tmp-{start}{process}-{name}"
    path.mkdir(parents=True) if name == "folder" else path.write_bytes(b"half")
    return path


ELSEWHERE = "h0000000"


@pytest.mark.parametrize("name", ["file.nii.gz", "folder", "7-file"])
@pytest.mark.parametrize("machine", [None, "here"])
def test_what_a_dead_process_left_is_removed_and_what_a_living_one_writes_is_not(
    tmp_path, dead_process, living_process, machine, name
):
    machine = machine and this_machine()
    gone = left_by(machine, dead_process, tmp_path, name)
    stays = left_by(machine, living_process, tmp_path, name)
    remove_leftovers(tmp_path)
    assert not gone.exists()
    assert stays.exists()


@pytest.mark.parametrize("name", ["file.nii.gz", "folder"])
def test_what_another_machine_left_is_removed_when_nobody_can_be_writing_it(
    tmp_path, dead_process, name
):
    """Whether a process runs there cannot be asked; a folder is as old as the newest
    file in it.
    """
    old = time.time() - 2 * FORGOTTEN_SECONDS
    forgotten = left_by(ELSEWHERE, dead_process, tmp_path, name)
    fresh = left_by(ELSEWHERE, dead_process + 1, tmp_path, name)
    if name == "folder":
        for folder in (forgotten, fresh):
            (folder / "inside").write_bytes(b"half")
        os.utime(forgotten / "inside", (old, old))
        os.utime(fresh, (old, old))
    os.utime(forgotten, (old, old))
    remove_leftovers(tmp_path)
    assert not forgotten.exists()
    assert fresh.exists()


def test_the_first_file_that_a_process_writes_sweeps_the_folder(tmp_path, dead_process):
    gone = [left_by(None, dead_process, tmp_path, name) for name in ("a", "folder")]
    write_bytes(tmp_path / "new.bin", b"1")
    assert not any(path.exists() for path in gone)
    left_by(None, dead_process, tmp_path / "more", "folder")
    with whole_folder(tmp_path / "more" / "new") as folder:
        (folder / "a.txt").write_text("x")
    assert names(tmp_path / "more") == ["new"]


def test_only_what_dead_processes_left_is_removed(
    tmp_path, dead_process, living_process
):
    (tmp_path / f".tmp-{dead_process}-file.nii.gz").write_bytes(b"half")
    (tmp_path / f".tmp-{dead_process}-folder").mkdir()
    others = [
        f".tmp-{living_process}-file.nii.gz",
        f".tmp-{os.getpid()}-own",
        ".tmp-12345678901234567890-x",
        ".tmp-mine",
    ]
    for name in others:
        (tmp_path / name).write_bytes(b"of others")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(others)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="may write anywhere"
)
def test_a_read_only_folder_is_a_resource_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="rights"):
        write_bytes(tmp_path / "a.bin", b"1")
