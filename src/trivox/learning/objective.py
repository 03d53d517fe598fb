"""What a task adds to the training loop."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn


class Objective(ABC):
    """Loss and score of a task.

    `outputs` is what the network returns, `targets` what batches hold beside the
    images.
    """

    @property
    def module(self) -> nn.Module | None:
        """What is learnt beside the network; it keeps its parameters and their
        gradients equal on all ranks.
        """
        return None

    def inputs(self, images: Any, targets: Any) -> tuple[Any, ...]:
        """What the network is called with in training."""
        return (images,)

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """A scalar that is the mean over the samples given."""

    @abstractmethod
    def count(self, outputs: Any, targets: Any) -> Tensor:
        """Numbers that add up over batches and ranks, from which `score` is computed."""

    @abstractmethod
    def score(self, counts: Tensor) -> dict[str, float]:
        """Validation figures; checkpoints are chosen by `validation_score`, or
        `validation_dice` where there is none.
        """

    def begin(self, spent: float, epoch: int) -> None:
        """Called before each step with the share of training that is spent, for weights
        that change on the way.
        """

    def figures(self) -> dict[str, float]:
        """More numbers for the record of an epoch."""
        return {}

    def state(self) -> dict[str, Any]:
        """What resuming needs beside `module`: tensors and plain values, for the
        checkpoint.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""

    def remarks(self, figures: dict[str, float]) -> list[str]:
        """Warnings about the figures of an epoch, for the log."""
        return []
