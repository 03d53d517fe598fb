"""How many samples go through the network at a time: chosen by forecast before
training, lowered when memory runs out.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trivox.errors import ResourceError
from trivox.learning.runtime import free_cached_memory, world_size
from trivox.memory import free_memory, memory_ran_out

HEADROOM = 0.85
"""Share of the available memory that a step may fill: the forecast is right to about
15 %.
"""


def available_memory(device: torch.device) -> int:
    """Bytes that a training may still take on `device`; on a CPU its fair share where
    several ranks train.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    return free_memory() // world_size()


def choose_micro_batch(
    batch: int, available: int, forecast: Callable[[int], int]
) -> int:
    """The largest equal part of a batch whose forecast in bytes fits; 1 if none does.

    Parts of equal size: a batch of 6 goes in parts of 6, 3, 2 or 1, never in 5 and 1.
    """
    parts = dict.fromkeys(math.ceil(batch / count) for count in range(1, batch + 1))
    return next((part for part in parts if forecast(part) <= HEADROOM * available), 1)


def lowered(error: Exception, micro: int) -> int:
    """The micro-batch to go on with after `error`; raises it again if it is not about
    memory, or if nothing is left.
    """
    if not memory_ran_out(error):
        raise error
    if micro <= 1:
        raise ResourceError(
            "a single patch does not fit into memory; use a smaller --patch-size or "
            "--network, or fewer other programs"
        ) from error
    if world_size() > 1:
        raise ResourceError(
            "out of memory on one of several ranks; set micro_batch to a smaller number"
        ) from error
    return math.ceil(micro / 2)


def in_parts(
    compute: Callable[[Any], Any],
    batch: Any,
    device: torch.device,
    *,
    too_many: Callable[[Any], None] = lambda batch: None,
) -> Any:
    """`compute(batch)`, where memory does not suffice of its halves, joined again.

    compute: gives a tensor, or a named tuple of them, with a row for each sample;
    too_many: is told of a batch that did not fit. Raises `ResourceError` where a single
    sample does not.
    """
    try:
        return compute(batch)
    except RuntimeError as error:
        if not memory_ran_out(error):
            raise
        if len(batch) == 1:
            raise ResourceError(
                f"a single patch does not fit into the memory of {device}; close other "
                "programs, or use --device cpu"
            ) from error
    # after the handler, whose traceback holds the maps
    free_cached_memory(device)
    too_many(batch)
    middle = len(batch) // 2
    halves = (batch[:middle], batch[middle:])
    return _joined(
        [in_parts(compute, half, device, too_many=too_many) for half in halves]
    )


def _joined(parts: Sequence[Any]) -> Any:
    """Tensors one after the other; of named tuples, each field."""
    first = parts[0]
    if first is None or isinstance(first, Tensor):
        return None if first is None else torch.cat(list(parts))
    return type(first)(*(_joined(field) for field in zip(*parts, strict=True)))
