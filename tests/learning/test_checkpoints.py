"""Checkpoints: there and back, crash-proof, and never executable."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from trivox.errors import BundleError, FormatError, ResourceError
from trivox.learning.checkpoints import (
    OPTIMIZER,
    STATE,
    WEIGHTS,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)


def trained(seed):
    """A small network and optimizer after one step, so that there is momentum."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return network, optimizer


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_weights_state_and_optimizer_come_back_exactly(tmp_path):
    network, optimizer = trained(0)
    save_checkpoint(
        tmp_path / "latest", network, {"step": 7, "best": None}, optimizer.state_dict()
    )
    checkpoint = load_checkpoint(tmp_path / "latest")
    assert same(checkpoint.weights, network.state_dict())
    assert checkpoint.state == {"step": 7, "best": None}
    for index, entry in optimizer.state_dict()["state"].items():
        assert same(checkpoint.optimizer["state"][index], entry)
    assert names(tmp_path) == ["latest"]
    assert names(tmp_path / "latest") == sorted([WEIGHTS, OPTIMIZER, STATE])


def test_a_checkpoint_may_go_without_an_optimizer(tmp_path):
    save_checkpoint(tmp_path / "best", trained(0)[0], {})
    assert load_checkpoint(tmp_path / "best").optimizer is None
    assert names(tmp_path / "best") == sorted([WEIGHTS, STATE])


def test_where_no_checkpoint_is_there_is_none(tmp_path):
    assert load_checkpoint(tmp_path / "latest") is None


def test_weights_that_are_not_contiguous_are_saved_as_they_are(tmp_path):
    network = nn.Conv3d(2, 4, 3).to(memory_format=torch.channels_last_3d)
    save_checkpoint(tmp_path / "c", network, {})
    assert same(load_checkpoint(tmp_path / "c").weights, network.state_dict())


@pytest.mark.parametrize("dies_at", [0, 1])
def test_a_crash_at_either_rename_leaves_the_old_checkpoint_and_the_next_save_heals(
    tmp_path, monkeypatch, dies_at
):
    first, _ = trained(0)
    second, _ = trained(1)
    save_checkpoint(tmp_path / "latest", first, {"step": 1})
    count = [0]
    real = Path.rename

    def rename(self, target):
        if count[0] == dies_at:
            raise KeyboardInterrupt  # as sudden as SIGKILL: nothing after it runs
        count[0] += 1
        return real(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(tmp_path / "latest", second, {"step": 2})
    checkpoint = load_checkpoint(tmp_path / "latest")
    assert checkpoint.state == {"step": 1}
    assert same(checkpoint.weights, first.state_dict())
    save_checkpoint(tmp_path / "latest", second, {"step": 3})
    assert load_checkpoint(tmp_path / "latest").state == {"step": 3}
    assert names(tmp_path) == ["latest"]


def test_a_full_disk_is_a_resource_error_and_keeps_the_old_checkpoint(
    tmp_path, monkeypatch
):
    save_checkpoint(tmp_path / "latest", trained(0)[0], {"step": 1})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trivox.learning.checkpoints.save_file", full)
    with pytest.raises(ResourceError, match=r"latest.*No space left"):
        save_checkpoint(tmp_path / "latest", trained(1)[0], {"step": 2})
    assert load_checkpoint(tmp_path / "latest").state == {"step": 1}
    assert names(tmp_path) == ["latest"]


@pytest.mark.parametrize(
    "damage",
    [lambda data: data[:40], lambda data: b"\xff" * len(data), lambda data: b""],
)
def test_damaged_weights_are_a_bundle_error_that_names_the_file(tmp_path, damage):
    save_checkpoint(tmp_path / "latest", trained(0)[0], {})
    file = tmp_path / "latest" / WEIGHTS
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BundleError, match=WEIGHTS):
        load_checkpoint(tmp_path / "latest")


def test_missing_weights_are_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match="not found"):
        load_weights(tmp_path / "none.safetensors")


def test_a_missing_state_is_an_error_that_names_the_file(tmp_path):
    save_checkpoint(tmp_path / "latest", trained(0)[0], {})
    (tmp_path / "latest" / STATE).unlink()
    with pytest.raises(FormatError, match=STATE):
        load_checkpoint(tmp_path / "latest")


class Payload:
    """What an attacker would put into a pickle: unpickling it creates a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_code_in_an_optimizer_file_is_refused_and_never_run(tmp_path, write):
    save_checkpoint(tmp_path / "latest", trained(0)[0], {})
    proof = tmp_path / "executed"
    file = tmp_path / "latest" / OPTIMIZER
    if write == "torch":
        torch.save({"state": Payload(proof)}, file)
    else:
        file.write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(BundleError, match=OPTIMIZER):
        load_checkpoint(tmp_path / "latest")
    assert not proof.exists()


def test_a_pickle_in_place_of_the_weights_is_refused_and_never_run(tmp_path):
    proof = tmp_path / "executed"
    torch.save(Payload(proof), tmp_path / WEIGHTS)
    with pytest.raises(BundleError, match=WEIGHTS):
        load_weights(tmp_path / WEIGHTS)
    assert not proof.exists()


def test_a_leftover_of_a_killed_save_is_overwritten(tmp_path):
    save_checkpoint(tmp_path / "latest", trained(0)[0], {"step": 1})
    shutil.copytree(tmp_path / "latest", tmp_path / ".latest.old")
    save_checkpoint(tmp_path / "latest", trained(1)[0], {"step": 2})
    assert load_checkpoint(tmp_path / "latest").state == {"step": 2}
    assert names(tmp_path) == ["latest"]
