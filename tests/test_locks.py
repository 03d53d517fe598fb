"""One writer for a folder, or for a case in it; a dead one is in nobody's way."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from trivox import locks
from trivox.errors import BusyError, ResourceError
from trivox.files import this_machine
from trivox.locks import CLAIM, LOCK, alone, claimed

HOLDER = """
import sys
from pathlib import Path
from trivox.locks import claimed
names = sys.argv[2].split(",") if sys.argv[2] else None
with claimed(Path(sys.argv[1]), "train", names):
    print("ready", flush=True)
    input()
"""


@pytest.fixture
def holding():
    """Start a process that writes into a folder until it is let go."""
    started = []

    def start(folder, names=()):
        child = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), ",".join(names)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        assert child.stdout.readline() == "ready\n"
        return child

    yield start
    for child in started:
        child.kill()
        with child:  # closes its streams, and waits
            pass


def let_go(child):
    child.stdin.write("\n")
    child.stdin.flush()


def test_a_second_process_is_refused_with_owner_age_and_remedy(tmp_path, holding):
    child = holding(tmp_path)
    with (
        pytest.raises(
            BusyError,
            match=rf"is being written by process {child.pid} on .+ since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d \(trivox train\); wait for it, or choose another",
        ),
        claimed(tmp_path, "train"),
    ):
        pass
    let_go(child)
    assert child.wait() == 0
    with claimed(tmp_path, "train"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_killed_process_holds_nothing(tmp_path, holding):
    child = holding(tmp_path)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert list(tmp_path.glob(f"{CLAIM}*"))
    with claimed(tmp_path, "train"):
        pass
    assert not list(tmp_path.iterdir())


def test_one_that_waits_says_so_once_and_goes_on(tmp_path, holding, monkeypatch):
    monkeypatch.setattr(locks, "WAIT", 0.01)
    child = holding(tmp_path)
    lines = []

    def say(line):
        lines.append(line)
        threading.Timer(0.1, let_go, [child]).start()

    with claimed(tmp_path, "preprocess", wait=True, say=say):
        assert child.wait() == 0
    assert len(lines) == 1
    assert "waiting for it" in lines[0]


@pytest.mark.parametrize(
    ("first", "second", "allowed"),
    [
        (["a"], ["b", "c"], True),
        (["a", "b"], ["b", "c"], False),
        (None, ["a"], False),
        (["a"], None, False),
        (["a"], [], True),
    ],
)
def test_cases_are_claimed_one_by_one(tmp_path, first, second, allowed):
    def both():
        with claimed(tmp_path, "predict", first), claimed(tmp_path, "predict", second):
            assert len(list(tmp_path.iterdir())) == 2

    if allowed:
        both()
    else:
        with pytest.raises(BusyError):
            both()
    assert not list(tmp_path.iterdir())


def test_a_folder_in_which_nothing_was_written_goes_again(tmp_path):
    with claimed(tmp_path / "new" / "run", "train"):
        pass
    assert not (tmp_path / "new" / "run").exists()
    with claimed(tmp_path / "run", "train"):
        (tmp_path / "run" / "a").write_text("x")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["a"]


def test_only_one_is_alone_and_the_lock_leaves_no_file(tmp_path):
    """Threads: each opens the file anew, as processes do."""
    count = tmp_path / "count"
    count.write_text("0")

    def add():
        for _ in range(20):
            with alone(tmp_path):
                count.write_text(str(int(count.read_text()) + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count.read_text() == "80"
    assert not (tmp_path / LOCK).exists()


def no_locks(descriptor):
    raise OSError(38, "Function not implemented")


def test_without_locks_a_line_is_said_and_the_work_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_lock", no_locks)
    lines = []
    with claimed(tmp_path, "train", say=lines.append), alone(tmp_path):
        pass
    (line,) = lines
    assert "files cannot be locked here (Function not implemented)" in line


@pytest.mark.parametrize("alive", [True, False])
def test_without_locks_the_number_of_a_process_says_whether_it_lives(
    tmp_path, monkeypatch, living_process, dead_process, alive
):
    claim = {
        "verb": "train",
        "process": living_process if alive else dead_process,
        "machine": this_machine(),
        "host": "here",
        "since": "2026-01-01T10:00:00",
        "names": None,
    }
    file = tmp_path / f"{CLAIM}x"
    file.write_text(json.dumps(claim))
    monkeypatch.setattr(locks, "_lock", no_locks)
    assert locks._is_alive(file) == alive


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(ResourceError, match="cannot be written"),
        claimed(tmp_path / "file" / "run", "train"),
    ):
        pass


def test_a_claim_that_is_no_claim_is_in_nobodys_way(tmp_path):
    (tmp_path / f"{CLAIM}x").write_text("[")
    with claimed(tmp_path, "train"):
        pass
