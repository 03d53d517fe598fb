"""Runtime: device, precision, seeds."""

import os
import random
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from trivox.errors import RecipeError, ResourceError
from trivox.learning import runtime as runtime_module
from trivox.learning.interruption import stop_signals
from trivox.learning.ranks.group import process_group
from trivox.learning.runtime import (
    Runtime,
    keep_freed_memory,
    make_runtime,
    process_memory_peak,
    rank,
    seed_everything,
    sum_over_ranks,
    widest_type,
    world_size,
)

CPU = torch.device("cpu")


def test_one_process_is_rank_0_of_1_and_sums_are_its_own():
    assert (rank(), world_size()) == (0, 1)
    value = torch.tensor([1.0, 2.0])
    assert torch.equal(sum_over_ranks(value), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize("name", ["warp", "gpu", "gpu7", "meta", ""])
def test_a_device_that_does_not_exist_is_a_recipe_error(name):
    with pytest.raises(RecipeError, match="device"):
        make_runtime(name)


def test_a_gpu_that_is_not_there_is_a_resource_error():
    with pytest.raises(ResourceError, match="not available"):
        make_runtime("cuda:77")


def test_fp16_is_refused_on_a_cpu():
    with pytest.raises(RecipeError, match="fp16 needs a GPU"):
        make_runtime("cpu", "fp16")


@pytest.mark.parametrize("fast", [True, False])
def test_auto_precision_on_a_cpu_follows_its_hardware(monkeypatch, fast):
    monkeypatch.setattr("trivox.learning.runtime.cpu_has_bf16", lambda: fast)
    assert make_runtime("cpu", "auto").precision == ("bf16" if fast else "fp32")


@pytest.mark.parametrize(
    ("precision", "kind", "size"),
    [("fp32", torch.float32, 4), ("bf16", torch.bfloat16, 2)],
)
def test_autocast_gives_activations_of_the_precision_and_their_size(
    precision, kind, size
):
    runtime = Runtime(CPU, precision)
    with runtime.autocast():
        assert torch.nn.Linear(2, 2)(torch.randn(1, 2)).dtype == kind
    assert runtime.activation_bytes == size
    assert not runtime.scaler().is_enabled()


def test_runtime_on_cpu_computes_in_the_chosen_precision():
    layer = nn.Conv3d(1, 1, 1)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        runtime = make_runtime("cpu", precision)
        with runtime.autocast():
            assert layer(torch.zeros(1, 1, 2, 2, 2)).dtype == dtype
        assert runtime.activation_bytes == dtype.itemsize
        assert not runtime.scaler().is_enabled()


def test_the_memory_peak_is_that_of_this_process():
    held = psutil.Process().memory_info().rss
    assert 50e6 < Runtime(CPU, "fp32").memory_peak() < 1e12
    assert Runtime(CPU, "fp32").memory_peak() > held / 2


def test_the_memory_peak_is_in_bytes_on_every_system(monkeypatch):
    """Linux tells KiB, macOS bytes, and Windows by a name of its own."""
    usage = SimpleNamespace(ru_maxrss=7_000_000)
    monkeypatch.setattr("resource.getrusage", lambda who: usage)
    monkeypatch.setattr(runtime_module.sys, "platform", "linux")
    assert process_memory_peak() == 7_000_000 * 1024
    monkeypatch.setattr(runtime_module.sys, "platform", "darwin")
    assert process_memory_peak() == 7_000_000
    memory = SimpleNamespace(peak_wset=5_000_000)
    process = SimpleNamespace(memory_info=lambda: memory)
    monkeypatch.setattr(runtime_module.psutil, "Process", lambda: process)
    monkeypatch.setattr(runtime_module.sys, "platform", "win32")
    assert process_memory_peak() == 5_000_000


@pytest.mark.parametrize("missing", [OSError, AttributeError, TypeError])
def test_without_glibc_freed_memory_is_left_to_the_system(monkeypatch, missing):
    def load(name):
        raise missing

    monkeypatch.setattr(runtime_module.ctypes, "CDLL", load)
    for name in runtime_module.MALLOC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert keep_freed_memory() is False


def test_torchrun_needs_a_torch_with_distributed(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(runtime_module.dist, "is_available", lambda: False)
    with pytest.raises(ResourceError, match="without torchrun"), process_group(CPU):
        pass
    monkeypatch.delenv("RANK")
    with process_group(CPU):
        assert world_size() == 1


HANGUPS = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []


@pytest.fixture
def heard():
    """Hangups are heard, even where the tests run under nohup."""
    before = [signal.signal(hangup, signal.SIG_DFL) for hangup in HANGUPS]
    yield
    for hangup, handler in zip(HANGUPS, before, strict=True):
        signal.signal(hangup, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, *HANGUPS])
def test_stop_signals_give_back_what_was_there(number):
    before = signal.getsignal(number)
    asked = []
    with stop_signals(lambda: asked.append(1)):
        signal.raise_signal(number)
    assert asked == [1]
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("hangup", HANGUPS)
def test_a_closed_terminal_stops_nothing_under_nohup(hangup):
    before = signal.signal(hangup, signal.SIG_IGN)
    asked = []
    try:
        with stop_signals(lambda: asked.append(1)):
            signal.raise_signal(hangup)
    finally:
        signal.signal(hangup, before)
    assert asked == []


def test_a_handler_that_python_did_not_set_becomes_the_usual_one(monkeypatch):
    handlers = {}

    def install(number, handler):
        if handler is None:
            raise TypeError("signal handler must be callable")
        handlers[number] = handler

    monkeypatch.setattr("trivox.learning.interruption.signal.signal", install)
    with stop_signals(lambda: None):
        pass
    assert set(handlers.values()) == {signal.SIG_DFL}


@pytest.mark.parametrize(
    ("device", "widest"), [("cpu", torch.float64), ("mps", torch.float32)]
)
def test_sums_are_as_wide_as_the_device_can(device, widest):
    assert widest_type(torch.device(device)) == widest
    assert Runtime(torch.device(device), "fp32").wide == widest


FAULTS = """
import resource, sys, torch
from contextlib import nullcontext
from trivox.learning.runtime import keep_freed_memory, large_blocks_kept, make_runtime
def faults(megabytes):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    [torch.ones(megabytes * 2**20, dtype=torch.uint8) for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def fewest(megabytes):
    counts = [faults(megabytes) for _ in range(6)]
    return min(counts[2:])
make_runtime("cpu")
if sys.argv[1] == "small":
    print(fewest(20), keep_freed_memory())
else:
    before = fewest(40)
    with large_blocks_kept():
        print(fewest(40), keep_freed_memory(), before)
"""


@pytest.mark.skipif(
    "LD_PRELOAD" in os.environ, reason="another malloc may be preloaded"
)
def test_on_a_cpu_memory_that_was_freed_is_taken_again_without_asking_the_system():
    """Without the options there are 20480 faults a round, where the system gives pages
    of 4 kB.
    """
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, "small"],
        capture_output=True,
        text=True,
        check=True,
    )
    pages, supported = done.stdout.split()
    if supported != "True":
        pytest.skip("malloc is not glibc's, or has been told otherwise")
    assert int(pages) < 1000  # four tensors have 20480 pages


@pytest.mark.skipif(
    "LD_PRELOAD" in os.environ, reason="another malloc may be preloaded"
)
def test_large_blocks_are_kept_where_that_is_asked_for():
    """Four tensors of 40 MB have 40960 pages of 4 kB."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, "large"],
        capture_output=True,
        text=True,
        check=True,
    )
    within, supported, before = done.stdout.split()
    if supported != "True":
        pytest.skip("malloc is not glibc's, or has been told otherwise")
    assert int(within) < 1000
    assert int(within) < int(before)


@pytest.mark.parametrize("name", runtime_module.MALLOC_VARIABLES)
def test_what_the_user_told_malloc_stays(monkeypatch, name):
    monkeypatch.setenv(name, "1")
    monkeypatch.setattr(runtime_module.ctypes, "CDLL", None)  # would be called
    assert keep_freed_memory() is False
    with runtime_module.large_blocks_kept():
        pass


def test_the_same_seed_gives_the_same_numbers_everywhere():
    def numbers():
        of_numpy = float(np.random.rand())  # noqa: NPY002 - the one that is seeded
        return random.random(), of_numpy, float(torch.rand(1))

    seed_everything(5)
    first = numbers()
    seed_everything(5)
    assert numbers() == first
    seed_everything(6)
    assert all(a != b for a, b in zip(numbers(), first, strict=True))
    seed_everything(2**40)  # larger than numpy's global generator takes


def test_seeds_are_the_same_with_and_without_exact_repetition():
    drawn = []
    for _ in range(2):
        seed_everything(5, deterministic=True)
        drawn.append(torch.rand(3))
    seed_everything(5)
    assert torch.equal(*drawn)


def test_one_gpu_for_all_processes_of_torchrun_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        RecipeError, match="use --device cuda, which gives each its own"
    ):
        make_runtime("cuda:0")
