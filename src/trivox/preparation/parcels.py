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


def smallest_integers(labels: Tensor) -> Tensor:
    """Label indices in one byte each, if they fit."""
    if labels.dtype == torch.int8 or not labels.numel():
        return labels.to(torch.int8)
    low, high = torch.aminmax(labels)
    kind = torch.iinfo(torch.int8)
    fits = kind.min <= int(low) and int(high) <= kind.max
    return labels.to(torch.int8) if fits else labels
