"""What a task adds to the training loop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn


class Objective(ABC):
    """Loss and score of a task.

    `outputs` is what the network returns, `targets` what batches hold beside the
    images.
    """

    headlines: ClassVar[tuple[str, ...]] = ()
    """Figures of `score` that checkpoints are chosen and training is stopped by; the
    first that an epoch has counts. None: the last checkpoint is as good as any.
    """

    @property
    def module(self) -> nn.Module | None:
        """What is learnt beside the network; it keeps its parameters and their
        gradients equal on all ranks.
        """
        return None

    @property
    def leaves_parts_out(self) -> bool:
        """Whether some steps use only a part of the network's parameters, which ranks
        have to know.
        """
        return False

    @property
    def repeats(self) -> bool:
        """Whether the loss is the same kernels at every step, none of them on the host:
        what a CUDA graph can record.
        """
        return False

    def inputs(self, images: Any, targets: Any) -> tuple[Any, ...]:
        """What the network is called with in training."""
        return (images,)

    def targets(self, images: Any, targets: Any) -> Any:
        """What outputs are compared with in training: what the batch holds, or more."""
        return targets

    @abstractmethod
    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """A scalar that is the mean over the samples given."""

    @abstractmethod
    def count(self, outputs: Any, targets: Any) -> Tensor:
        """Numbers that add up over batches and ranks, from which `score` is computed."""

    @abstractmethod
    def score(self, counts: Tensor) -> dict[str, float]:
        """Validation figures by the names that they have in the record of an epoch."""

    def headline(self, figures: Mapping[str, float]) -> str | None:
        """Name of the figure that decides about this epoch, see `headlines`."""
        return next((name for name in self.headlines if name in figures), None)

    def summary(self, figures: Mapping[str, float]) -> str:
        """The few words about what `score` gave in an epoch's line ("dice 0.812")."""
        return ""

    def begin(self, spent: float, epoch: int) -> None:  # noqa: B027
        """Called before each step with the share of training that is spent, for weights
        that change on the way.
        """

    def figures(self) -> dict[str, float]:
        """More numbers for the record of an epoch."""
        return {}

    def state(self) -> Mapping[str, object]:
        """What resuming needs beside `module`: tensors and plain values, for the
        checkpoint.
        """
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Continue from `state`."""

    def remarks(self, figures: dict[str, float]) -> list[str]:
        """Warnings about the figures of an epoch, for the log."""
        return []
