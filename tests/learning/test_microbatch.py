"""The automatic micro-batch: the largest equal part of a batch that fits what there is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox import memory
from trivox.config.recipe import make_recipe
from trivox.errors import ResourceError
from trivox.learning.microbatch import (
    HEADROOM,
    available_memory,
    choose_micro_batch,
    lowered,
)
from trivox.learning.runtime import Runtime
from trivox.planning.plan import read_plan
from trivox.tasks import forecast as forecasting
from trivox.tasks.forecast import forecast_training, step_memory

pytestmark = pytest.mark.usefixtures("without_figures")

CPU = Runtime(torch.device("cpu"), "fp32")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 40),
    available=st.integers(0, 5000),
    fixed=st.integers(0, 300),
    each=st.integers(1, 100),
)
def test_the_part_chosen_fits_and_the_next_larger_equal_part_does_not(
    batch, available, fixed, each
):
    def forecast(part):
        return fixed + each * part

    chosen = choose_micro_batch(batch, available, forecast)
    assert chosen == 1 or forecast(chosen) <= HEADROOM * available
    parts = {math.ceil(batch / count) for count in range(1, batch + 1)}
    larger = [part for part in parts if part > chosen]
    assert all(forecast(part) > HEADROOM * available for part in larger)


def test_parts_are_equal():
    assert (
        choose_micro_batch(6, 100, lambda part: 18 * part) == 3
    )  # 4 would fit, and leave parts of 4 and 2
    assert choose_micro_batch(6, 10**6, lambda part: part) == 6
    assert choose_micro_batch(6, 0, lambda part: part) == 1


def test_the_memory_of_this_machine_is_neither_nothing_nor_everything():
    assert 10e6 < available_memory(torch.device("cpu")) < 100e12


def test_a_container_may_have_less_than_its_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    unlimited = available_memory(torch.device("cpu"))
    (tmp_path / "memory.max").write_text("4000000\n")
    (tmp_path / "memory.stat").write_text("anon 1000000\nfile 2500000\n")
    assert available_memory(torch.device("cpu")) == 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory(torch.device("cpu")) > min(unlimited, 10**9) / 2


class Log:
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


@pytest.fixture
def plan(tiny_run):
    return read_plan(tiny_run / "plan.json")


def forecast(plan, monkeypatch, available, **changes):
    monkeypatch.setattr(forecasting, "available_memory", lambda device: available)
    log = Log()
    recipe = make_recipe("quick_test", changes)
    return forecast_training(plan, recipe, CPU, batch=8, log=log), log.lines, recipe


def test_auto_takes_what_fits_and_says_so(plan, monkeypatch):
    recipe = make_recipe("quick_test")
    room = int(step_memory(plan, recipe, CPU, 4) / HEADROOM) + 1
    micro, lines, _ = forecast(plan, monkeypatch, room, micro_batch="auto")
    assert micro == 4
    assert "micro-batches of 4 of 8" in lines[0]
    assert len(lines) == 1
    assert forecast(plan, monkeypatch, 10**12, micro_batch="auto")[0] == 8


def test_memory_that_is_too_small_is_a_warning_that_says_what_to_do(plan, monkeypatch):
    recipe = make_recipe("quick_test")
    whole = step_memory(plan, recipe, CPU, 8)
    single = step_memory(plan, recipe, CPU, 1)
    micro, lines, _ = forecast(plan, monkeypatch, int(0.9 * whole))
    assert micro is None
    assert "available" in lines[0]
    assert lines[1].startswith("warning: that does not fit; use --set micro_batch=auto")
    micro, lines, _ = forecast(plan, monkeypatch, int(0.9 * single), micro_batch="auto")
    assert micro == 1
    assert lines[1].startswith(
        "warning: that does not fit; use --set gradient_checkpointing"
    )


@pytest.mark.parametrize("micro", ["auto", None, 2])
def test_a_step_far_beyond_memory_is_refused_before_it_is_taken(
    plan, monkeypatch, micro
):
    with pytest.raises(ResourceError, match=r"needs about .* GB, 1e-06 GB are avail"):
        forecast(plan, monkeypatch, 1000, micro_batch=micro)


def test_a_fixed_micro_batch_is_forecast_as_it_is(plan, monkeypatch):
    _, lines, recipe = forecast(plan, monkeypatch, 10**12, micro_batch=2)
    assert f"{step_memory(plan, recipe, CPU, 2) / 1e9:.2f} GB" in lines[0]
    assert "micro-batches of 2 of 8" in lines[0]


def test_the_forecast_knows_the_average_and_checkpointing(plan):
    whole, averaged, lean = (
        step_memory(plan, make_recipe("quick_test", changes), CPU, 8)
        for changes in ({}, {"weights_ema": 0.9}, {"gradient_checkpointing": True})
    )
    assert averaged == whole + plan.memory.weights
    assert lean < whole


def test_auto_trains_in_parts_and_keeps_the_choice_for_a_resume(
    tmp_path, tiny_data, tiny_settings, monkeypatch
):
    from trivox.learning.checkpoints import load_checkpoint
    from trivox.tasks.run import run_request
    from trivox.tasks.task import RunRequest

    monkeypatch.setattr(forecasting, "available_memory", lambda device: 1)
    monkeypatch.setattr(forecasting, "FAR_TOO_MUCH", 1e12)
    run_request(
        RunRequest(
            tiny_data,
            tmp_path / "run",
            "quick_test",
            {**tiny_settings, "micro_batch": "auto", "epochs": 1},
        )
    )
    state = load_checkpoint(tmp_path / "run" / "checkpoints" / "latest").state
    assert state["progress"]["micro_batch"] == 1
    assert "micro-batches of 1 of 2" in (tmp_path / "run" / "log.txt").read_text()


def test_only_errors_about_memory_lower_the_micro_batch():
    for error in (
        torch.OutOfMemoryError("x"),
        RuntimeError("DefaultCPUAllocator: can't allocate"),
        MemoryError(),
    ):
        assert lowered(error, 5) == 3
        with pytest.raises(ResourceError, match="--patch-size"):
            lowered(error, 1)
    with pytest.raises(ValueError, match="allocate"):
        lowered(ValueError("how to allocate labels"), 4)
