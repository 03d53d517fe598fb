"""What a task adds to the training loop."""

from typing import Protocol

from torch import Tensor, nn


class Objective(Protocol):
    """Loss and score of a task."""

    @property
    def module(self) -> nn.Module | None:
        """What is learnt beside the network; it keeps its parameters and their gradients equal on all ranks."""

    def loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """A scalar that is the mean over the samples given."""

    def count(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Numbers that add up over batches and ranks, from which `score` is computed."""

    def score(self, counts: Tensor) -> dict[str, float]:
        """Validation figures; `validation_dice` is the one that checkpoints are chosen by."""

    def figures(self) -> dict[str, float]:
        """More numbers for the record of an epoch."""
