"""How the processes of torchrun meet, wait for each other and pass things on.

Two groups: one for training, where a rank that does not come within minutes has died,
and one for waiting, where the first rank may prepare a large dataset for hours. That one
is gloo's, whose processes sleep until they hear something; those that wait in nccl keep
a GPU and a core busy.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from trivox.errors import ResourceError
from trivox.learning.runtime import is_launched, rank, world_size

TRAINING = timedelta(minutes=20)
"""Of a collective in training; the slowest step, a checkpoint and a compilation take
less.
"""
WAITING = timedelta(hours=48)
FIRST = 0


@dataclass
class Meeting:
    """Where the ranks wait for each other; None: nowhere but in the usual group."""

    group: dist.ProcessGroup | None = None


MEETING = Meeting()


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Join the processes that torchrun started (gloo on CPU, nccl on GPU, gloo where
    nccl is missing); without torchrun, do nothing.

    Raises `ResourceError` for a torch that was built without distributed.
    """
    if not is_launched() or MEETING.group is not None:
        yield
        return
    if not dist.is_available():
        raise ResourceError(
            "this torch was built without distributed; start without torchrun"
        )
    joined = not dist.is_initialized()
    if joined:
        _join(device)
    MEETING.group = dist.new_group(backend="gloo", timeout=WAITING)
    try:
        yield
    finally:
        dist.destroy_process_group(None if joined else MEETING.group)
        MEETING.group = None


def _join(device: torch.device) -> None:
    """Meet in the group that gradients are exchanged in."""
    if device.type == "cuda" and dist.is_nccl_available():
        # a process that knows its GPU does not guess it from its rank
        dist.init_process_group("nccl", timeout=TRAINING, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=TRAINING)


def meet() -> None:
    """Wait until all ranks are here."""
    if world_size() > 1:
        dist.barrier(group=MEETING.group)


@contextmanager
def first_rank_first() -> Iterator[None]:
    """The first rank goes ahead; the others wait for it, and follow."""
    if rank() != FIRST:
        meet()
    yield
    if rank() == FIRST:
        meet()


def send(content: bytes, to: int) -> None:
    """Send bytes to a rank, which must `receive` them."""
    size = torch.tensor([len(content)])
    dist.send(size, to, group=MEETING.group)
    body = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    dist.send(body, to, group=MEETING.group)


def receive(sender: int) -> bytes:
    """Wait for the bytes that a rank sends."""
    size = torch.zeros(1, dtype=torch.int64)
    dist.recv(size, sender, group=MEETING.group)
    body = torch.empty(int(size), dtype=torch.uint8)
    dist.recv(body, sender, group=MEETING.group)
    return body.numpy().tobytes()
