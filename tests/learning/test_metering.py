"""What work takes, and by which way its energy is known."""

import time
from types import SimpleNamespace

import pytest
import torch

from trivox.learning import metering
from trivox.learning.metering import (
    NO_GPU,
    OF_GPU,
    OF_PACKAGES,
    Meter,
    Reading,
    assumed,
)

CPU = torch.device("cpu")
BEFORE = Reading(seconds=10.0, cpu_seconds=20.0, machine=None, gpu=None)


def write_package(folder, microjoules):
    zone = folder / "intel-rapl:0"
    zone.mkdir(exist_ok=True)
    for name, content in {
        "name": "package-0",
        "max_energy_range_uj": 10**12,
        "energy_uj": microjoules,
    }.items():
        (zone / name).write_text(f"{content}\n", encoding="ascii")


def meter(folder, watts=12.0):
    return Meter(CPU, watts_per_core=watts, powercap=folder)


def reading(monkeypatch, subject, **changes):
    content = {"seconds": 14.0, "cpu_seconds": 27.0, "machine": None, "gpu": None}
    now = Reading(**{**content, **changes})
    monkeypatch.setattr(subject, "read", lambda: now)


def test_without_counters_energy_is_cpu_seconds_times_an_assumed_power(
    tmp_path, monkeypatch
):
    subject = meter(tmp_path, watts=9.5)
    reading(monkeypatch, subject)
    spent = subject.since(BEFORE)
    assert (spent.seconds, spent.cpu_seconds, spent.joules) == (4, 7, 7 * 9.5)
    assert spent.energy_by == (assumed(9.5),)
    assert "9.5 W" in spent.energy_by[0]
    assert "assumed" in spent.energy_by[0]


def test_a_counter_of_the_machine_comes_before_an_assumption(tmp_path, monkeypatch):
    write_package(tmp_path, 5_000_000)
    subject = meter(tmp_path)
    before = subject.read()
    write_package(tmp_path, 47_000_000)
    spent = subject.since(before)
    assert spent.joules == 42
    assert spent.energy_by == (OF_PACKAGES,)
    # of several processes on a machine one counts it
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert subject.since(before).joules == 0


@pytest.mark.parametrize(
    ("counter", "joules", "way"), [(None, 84, NO_GPU), (30.0, 104, OF_GPU)]
)
def test_a_gpu_is_added_where_it_counts_and_said_to_be_unknown_elsewhere(
    tmp_path, monkeypatch, counter, joules, way
):
    subject = meter(tmp_path)
    subject.device = SimpleNamespace(type="mps")
    subject.nvml = counter and SimpleNamespace(joules=lambda: counter)
    reading(monkeypatch, subject, gpu=counter)
    before = Reading(10.0, 20.0, None, None if counter is None else 10.0)
    spent = subject.since(before)
    assert spent.joules == joules
    assert set(spent.energy_by) == {assumed(12), way}


def test_work_of_this_process_and_of_ended_children_counts(tmp_path, monkeypatch):
    times = SimpleNamespace(user=1, system=2, children_user=4, children_system=8)
    monkeypatch.setattr(metering.os, "times", lambda: times)
    assert meter(tmp_path).read().cpu_seconds == 15


def test_clocks_go_forward_and_memory_is_there(tmp_path):
    subject = meter(tmp_path)
    with subject.running():
        before = subject.read()
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        spent = subject.since(before)
    assert spent.cpu_seconds > 0
    assert spent.seconds > 0
    assert spent.memory_bytes > 0
    assert subject.of_all_ranks(spent) == spent


def test_ranks_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(metering, "world_size", lambda: 3)
    monkeypatch.setattr(metering, "sum_over_ranks", lambda values: 3 * values)
    subject = meter(tmp_path)
    spent = subject.since(subject.read()).model_copy(
        update={"seconds": 5.0, "cpu_seconds": 4.0, "joules": 48.0, "memory_bytes": 7}
    )
    together = subject.of_all_ranks(spent)
    assert together.seconds == 5
    assert together.cpu_seconds == 12
    assert together.joules == 144
    assert together.memory_bytes == 21
