"""Threads are as many as the container gives cores for, not as the machine has."""

import math
import os

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trivox import cores
from trivox.learning import runtime

PERIOD = 100_000
MANY = 64


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of `MANY` cores without any limit; returns where its files are."""
    monkeypatch.setattr(cores, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "OF_PROCESS", tmp_path / "of_process")
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda process: set(range(MANY)), raising=False
    )
    return tmp_path


def of_version_2(folder, quota):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{quota} {PERIOD}\n", encoding="ascii")


def of_version_1(folder, quota):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n", encoding="ascii")
    (folder / "cpu.cfs_period_us").write_text(f"{PERIOD}\n", encoding="ascii")


def test_without_a_limit_all_permitted_cores_count(machine):
    assert cores.usable_cores() == MANY


@pytest.mark.parametrize("write", [of_version_2, of_version_1])
@pytest.mark.parametrize(
    ("quota", "wanted"),
    [(50_000, 1), (100_000, 1), (150_000, 2), (400_000, 4), (10**12, MANY)],
)
def test_a_quota_limits_them(machine, write, quota, wanted):
    folder = machine / "cgroup"
    write(folder if write is of_version_2 else folder / "cpu,cpuacct", quota)
    assert cores.usable_cores() == wanted


@pytest.mark.parametrize("unlimited", ["max", "-1", "", "none", "100000"])
def test_what_says_no_limit_or_nothing_is_none(machine, unlimited):
    folder = machine / "cgroup"
    folder.mkdir()
    (folder / "cpu.max").write_text(unlimited, encoding="ascii")
    of_version_1(folder / "cpu", unlimited if unlimited != "100000" else -1)
    assert cores.usable_cores() == MANY


def test_a_period_of_nothing_is_no_limit(machine):
    folder = machine / "cgroup"
    folder.mkdir()
    (folder / "cpu.max").write_text("100000 0", encoding="ascii")
    assert cores.usable_cores() == MANY


@given(st.lists(st.integers(1, MANY), min_size=1, max_size=4), st.sampled_from([1, 2]))
def test_the_narrowest_of_all_groups_around_counts(tmp_path_factory, limits, version):
    machine = tmp_path_factory.mktemp("machine")
    folder = machine / "cgroup" / ("cpu" if version == 1 else "")
    write = of_version_1 if version == 1 else of_version_2
    controllers = "4:cpu,cpuacct:" if version == 1 else "0::"
    path = "/".join(f"level{depth}" for depth in range(len(limits)))
    for depth, limit in enumerate(limits):
        folder = folder / f"level{depth}"
        write(folder, limit * PERIOD)
    lines = f"9:memory:/elsewhere\n{controllers}/{path}\n"
    (machine / "of_process").write_text(lines, encoding="ascii")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(cores, "CGROUP", machine / "cgroup")
        patched.setattr(cores, "OF_PROCESS", machine / "of_process")
        patched.setattr(cores, "_permitted_cores", lambda: MANY)
        assert cores.usable_cores() == min(limits)


def test_permitted_cores_are_never_exceeded(machine, monkeypatch):
    of_version_2(machine / "cgroup", 8 * PERIOD)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert cores.usable_cores() == 1


def test_systems_that_do_not_say_have_all_their_cores(machine, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores.usable_cores() == (os.cpu_count() or 1)


@pytest.fixture
def threads(monkeypatch):
    """How many threads torch pretends to use."""
    used = [MANY]
    monkeypatch.setattr(torch, "get_num_threads", lambda: used[-1])
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    monkeypatch.setattr(runtime, "usable_cores", lambda: 2)
    for name in runtime.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return used


def test_torch_takes_the_threads_of_the_container(threads):
    runtime.make_runtime("cpu")
    assert threads == [MANY, 2]


def test_fewer_threads_stay(threads):
    threads.append(1)
    runtime.make_runtime("cpu")
    assert threads == [MANY, 1]


@pytest.mark.parametrize("name", runtime.THREAD_VARIABLES)
def test_what_the_user_asks_for_stays(threads, monkeypatch, name):
    monkeypatch.setenv(name, "8")
    runtime.make_runtime("cpu")
    assert threads == [MANY]


def test_a_share_is_rounded_up():
    assert cores._whole(0.1) == 1
    assert cores._whole(math.inf) > MANY
