"""Figures of training steps that stay on the device until several are read at once:
reading one makes the program wait until the device has computed it.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trivox.learning.runtime import world_size

EVERY = 20
"""Steps of a GPU between two readings."""
EVERY_OF_RANKS = 4
"""The same where several train, which only then hear that one was asked to stop;
torchrun gives them 30 seconds.
"""


@dataclass
class Readings:
    """Loss and norm of the gradients of steps, in their order."""

    every: int = 1
    waiting: list[Tensor] = field(default_factory=list)

    @classmethod
    def on(cls, device: torch.device) -> "Readings":
        """Readings that suit a device: a CPU never waits."""
        if device.type == "cpu":
            return cls(1)
        return cls(EVERY if world_size() == 1 else EVERY_OF_RANKS)

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
