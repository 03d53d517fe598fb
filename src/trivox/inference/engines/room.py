"""What a GPU holds beside the network, and how it comes there."""

from collections.abc import Callable
from typing import TypeVar

import torch

from trivox.errors import ResourceError
from trivox.learning.microbatch import available_memory
from trivox.learning.runtime import free_cached_memory
from trivox.memory import memory_ran_out

MEMORY = torch.device("cpu")
T = TypeVar("T")


def fits(count: int, device: torch.device) -> bool:
    """Whether a GPU has `count` bytes left; what is on a CPU stays there."""
    return device.type == "cuda" and count <= available_memory(device)


def spared(work: Callable[[bool], T], device: torch.device) -> T:
    """`work(False)`; where the memory of a GPU does not suffice for it, `work(True)`,
    which leaves the GPU to the network alone.
    """
    try:
        return work(False)
    except (RuntimeError, ResourceError) as error:
        full = isinstance(error, ResourceError) or memory_ran_out(error)
        if device.type != "cuda" or not full:
            raise
    # after the handler, whose traceback holds tensors
    free_cached_memory(device)
    return work(True)
