"""Missing memory is called so, and never a damaged file."""

import errno
import os

import psutil
import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from trivox import memory
from trivox.errors import BundleError, ResourceError
from trivox.files import in_one_line
from trivox.inference.members import fill_network
from trivox.learning.checkpoints import (
    OPTIMIZER,
    WEIGHTS,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from trivox.memory import memory_ran_out
from trivox.preparation.store import undamaged
from trivox.service.serve.settings import MEMORY_SHARE, usual_memory

MISSING = [
    MemoryError(),
    RuntimeError("can't start new thread"),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
    OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ImportError("a.so: failed to map segment from shared object"),
    SafetensorError("Error while serializing: Cannot allocate memory (os error 12)"),
]
DAMAGE = [RuntimeError("size mismatch"), OSError(errno.EIO, "x"), ValueError("alloc")]
LINE = r"^out of memory \("
missing = pytest.mark.parametrize("error", MISSING, ids=repr)


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@missing
def test_errors_of_memory_are_told_from_others(error):
    assert memory_ran_out(error)
    assert not any(memory_ran_out(other) for other in DAMAGE)


@missing
def test_a_reader_that_lacks_memory_calls_no_file_damaged(error, tmp_path, monkeypatch):
    network = nn.Linear(1, 1)
    save_checkpoint(tmp_path / "latest", network, {"step": 1}, {"a": 1})
    with monkeypatch.context() as patched:
        patched.setattr("trivox.learning.checkpoints.load_file", raising(error))
        with pytest.raises(ResourceError, match=LINE), in_one_line():
            load_weights(tmp_path / "latest" / WEIGHTS)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "load", raising(error))
        with pytest.raises(ResourceError, match=LINE), in_one_line():
            load_checkpoint(tmp_path / "latest")
    with pytest.raises(ResourceError, match=LINE), undamaged(tmp_path, "a"):
        raise error
    assert (tmp_path / "latest" / OPTIMIZER).exists()


@pytest.mark.parametrize("error", MISSING[:3], ids=repr)
def test_a_network_that_lacks_memory_has_no_wrong_weights(error, tmp_path, monkeypatch):
    network = nn.Linear(1, 1)
    save_checkpoint(tmp_path / "latest", network, {})
    monkeypatch.setattr(network, "load_state_dict", raising(error))
    with pytest.raises((ResourceError, MemoryError)):
        fill_network(network, tmp_path / "latest" / WEIGHTS)


def test_only_weights_of_another_network_are_called_so(tmp_path, monkeypatch):
    network = nn.Linear(1, 1)
    save_checkpoint(tmp_path / "latest", network, {})
    file = tmp_path / "latest" / WEIGHTS
    for other in (nn.Linear(2, 1), nn.Linear(1, 1, bias=False)):
        with pytest.raises(BundleError, match="do not fit"):
            fill_network(other, file)
    failure = RuntimeError("CUDA error: device-side assert triggered")
    monkeypatch.setattr(network, "load_state_dict", raising(failure))
    with pytest.raises(RuntimeError, match="device-side assert"):
        fill_network(network, file)


@pytest.mark.parametrize("error", MISSING[:5], ids=repr)
def test_a_verb_says_it_in_one_line(error):
    with pytest.raises(ResourceError) as raised, in_one_line():
        raise error
    assert "\n" not in str(raised.value)
    with pytest.raises(RuntimeError, match="size mismatch"), in_one_line():
        raise DAMAGE[0]


@pytest.mark.parametrize("said", ["max\n", "no number", None])
def test_without_a_limit_the_machine_has_what_it_has(said, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    if said is not None:
        (tmp_path / "memory.max").write_text(said)
    assert memory.total_memory() == psutil.virtual_memory().total


def test_jobs_share_the_memory_of_their_container(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
    assert memory.total_memory() == 1 << 30
    assert usual_memory(2) == int((1 << 30) * MEMORY_SHARE / 2)
