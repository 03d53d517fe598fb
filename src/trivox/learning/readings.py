"""Figures of training steps that stay on the device until several are read at once:
reading one makes the program wait until the device has computed it.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

EVERY = 20
"""Steps of a GPU between two readings."""


@dataclass
class Readings:
    """Loss and norm of the gradients of steps, in their order."""

    every: int = 1
    waiting: list[Tensor] = field(default_factory=list)

    @classmethod
    def on(cls, device: torch.device) -> "Readings":
        """Readings that suit a device: a CPU never waits."""
        return cls(1 if device.type == "cpu" else EVERY)

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Take note of a step."""
        self.waiting.append(torch.stack([loss, norm]))

    @property
    def due(self) -> bool:
        """Whether it is time to read."""
        return len(self.waiting) >= self.every

    def read(self) -> list[list[float]]:
        """Loss and norm of the steps since the last reading."""
        if not self.waiting:
            return []
        figures: list[list[float]] = torch.stack(self.waiting).tolist()
        self.waiting.clear()
        return figures
