"""How ranks meet, as far as one process can see it."""

from datetime import timedelta

import pytest
import torch
from torch import nn

from training_toys import make
from trivox.learning.ranks import group
from trivox.learning.ranks.gradients import with_shared_gradients
from trivox.learning.ranks.group import meet, process_group
from trivox.learning.steps import learner as learner_module

dist = torch.distributed
pytestmark = pytest.mark.skipif(
    not dist.is_available(), reason="torch without distributed"
)
CPU = torch.device("cpu")


@pytest.fixture
def alone():
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize(
    ("device", "nccl", "expected"),
    [
        ("cuda:1", True, ("nccl", torch.device("cuda", 1))),
        ("cuda:1", False, ("gloo", None)),
        ("cpu", True, ("gloo", None)),
    ],
)
def test_ranks_train_in_one_group_and_wait_in_another(
    monkeypatch, device, nccl, expected
):
    """Who dies in training is missed within the hour; who prepares may take a night."""
    calls = []

    def note(backend=None, **options):
        calls.append({"backend": backend, **options})

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(dist, "is_nccl_available", lambda: nccl)
    for name in ("init_process_group", "new_group", "destroy_process_group"):
        monkeypatch.setattr(dist, name, note)
    with process_group(torch.device(device)):
        training, waiting = calls
    assert (training["backend"], training.get("device_id")) == expected
    assert timedelta(minutes=5) < training["timeout"] < timedelta(hours=1)
    assert waiting["backend"] == "gloo"
    assert waiting["timeout"] > timedelta(hours=10)


def test_a_group_that_is_there_is_joined_and_left_as_it_was(monkeypatch, alone):
    monkeypatch.setenv("RANK", "0")
    with process_group(CPU):
        waiting = group.MEETING.group
        assert dist.get_backend(waiting) == "gloo"
        with process_group(CPU):
            assert group.MEETING.group is waiting
        meet()
    assert group.MEETING.group is None
    assert dist.is_initialized()


def test_buffers_are_sent_only_where_training_changes_them(alone):
    for norm, changes in ((nn.BatchNorm3d(2), True), (nn.InstanceNorm3d(2), False)):
        network = nn.Sequential(nn.Conv3d(1, 2, 1), norm)
        shared = with_shared_gradients(network, CPU, parts_left_out=False)
        assert shared.broadcast_buffers is changes
        shared(torch.randn(2, 1, 2, 2, 2)).sum().backward()
        gradient = network[0].weight.grad
        assert gradient._base is not None  # a view of what is exchanged


def test_ranks_share_gradients_of_the_compiled_network(tmp_path, monkeypatch, alone):
    """The other way round the compiler would stop at every exchange."""
    compiled = []

    def compiler(network):
        compiled.append(nn.Sequential(network))
        return compiled[-1]

    monkeypatch.setattr(learner_module, "world_size", lambda: 2)
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(
        "trivox.learning.steps.compiling.shutil.which", lambda name: f"/usr/bin/{name}"
    )
    trainer = make(tmp_path, compile=True)
    trainer.fit()
    assert compiled == [trainer.learner.distributed.module]
    assert compiled[0][0] is trainer.network
