"""What is computed on the host reaches a GPU without anything waiting for it."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import ParamSpec, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

ALIGNED = 16
"""Bytes: where a tensor of any type may begin."""

Arguments = ParamSpec("Arguments")
Made = TypeVar("Made")

_PLACED: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`; from the host to a GPU by way of pinned memory, which the
    GPU reads while the program goes on.
    """
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def sent_together(tensors: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """Several tensors on `device`, sent as one piece."""
    if device.type != "cuda" or any(part.device.type != "cpu" for part in tensors):
        return [sent(part, device) for part in tensors]
    parts = [part.contiguous().view(-1).view(torch.uint8) for part in tensors]
    padded = [F.pad(part, (0, -len(part) % ALIGNED)) for part in parts]
    lengths = [len(part) for part in padded]
    pieces = sent(torch.cat(padded), device).split(lengths)
    return [
        piece[: len(part)].view(tensor.dtype).view(tensor.shape)
        for piece, part, tensor in zip(pieces, parts, tensors, strict=True)
    ]


def made_once(
    most: int,
) -> Callable[[Callable[Arguments, Made]], Callable[Arguments, Made]]:
    """Keep the last `most` tensors that a function makes, by its arguments: out of
    inference mode, since what is made in it may not be used in training later.
    """

    def keeping(make: Callable[Arguments, Made]) -> Callable[Arguments, Made]:
        usable = torch.inference_mode(False)(make)
        return cast(Callable[Arguments, Made], lru_cache(most)(usable))

    return keeping


@made_once(256)
def constant(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Numbers that never change, float32; sent once."""
    return sent(torch.tensor(values, dtype=torch.float32), device)


def on_device(fixed: Tensor, device: torch.device) -> Tensor:
    """A tensor that never changes on `device`, sent there once and kept as long as it
    is.
    """
    if fixed.device == device:
        return fixed
    placed: dict[torch.device, Tensor] = _PLACED.setdefault(fixed, {})
    if device not in placed:
        # what is made in inference mode may not be used in training later
        with torch.inference_mode(False):
            placed[device] = sent(fixed, device)
    return placed[device]
