"""Tensors that travel to a GPU together: one piece of pinned memory, one upload, nothing
waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

ALIGNED = 64
"""Bytes that each tensor starts at a multiple of."""

ROUNDING = 2**-11
"""Relative error of fp16."""

Place = tuple[int, torch.dtype, torch.Size]
"""Where a tensor begins, its type and its shape."""


@dataclass(frozen=True, eq=False)
class Parcel:
    """Tensors by name in one piece of memory `(bytes,)`."""

    memory: Tensor
    places: Mapping[str, Place]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Parcel":
        """Copy tensors of the CPU into memory that a GPU fetches by itself (pinned)."""
        places: dict[str, Place] = {}
        end = 0
        for name, tensor in tensors.items():
            places[name] = (end, tensor.dtype, tensor.shape)
            end += tensor.nbytes
            end += -end % ALIGNED
        memory = torch.empty(end, dtype=torch.uint8, pin_memory=True)
        parcel = cls(memory, places)
        for name, view in parcel.tensors().items():
            view.copy_(tensors[name])
        return parcel

    def to(self, device: torch.device) -> "Parcel":
        """Send it; the host goes on meanwhile."""
        return Parcel(self.memory.to(device, non_blocking=True), self.places)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors, as views of the memory."""
        return {name: self._view(*place) for name, place in self.places.items()}

    def _view(self, start: int, kind: torch.dtype, shape: torch.Size) -> Tensor:
        end = start + prod(shape) * kind.itemsize
        piece = self.memory[start:end]
        return piece.view(kind).view(shape)


Patches = tuple[Tensor, Tensor]
"""Images `(n, c, z, y, x)` and label indices `(n, z, y, x)`."""


def compact(patches: Patches, *, half: bool) -> Patches:
    """Images and labels in types that are sent fast; half: see `halved`."""
    images, labels = patches
    return halved(images) if half else images, smallest_integers(labels)


def halved(images: Tensor) -> Tensor:
    """Images in fp16, eleven binary digits of each value, if none is off by more than
    1/2048 of the largest; otherwise as they are.

    bf16 and fp16, in which a network computes, have no more digits. What does not fit is
    beyond the range of fp16: values above 65504, or all below 0.0001.
    """
    if not images.numel():
        return images.half()
    short = images.half()
    error = (short - images).abs_().max()
    largest = images.abs().max()
    return short if error <= ROUNDING * largest else images


def smallest_integers(labels: Tensor) -> Tensor:
    """Label indices in one byte each, if they fit."""
    if labels.dtype == torch.int8 or not labels.numel():
        return labels.to(torch.int8)
    low, high = torch.aminmax(labels)
    kind = torch.iinfo(torch.int8)
    fits = kind.min <= int(low) and int(high) <= kind.max
    return labels.to(torch.int8) if fits else labels
