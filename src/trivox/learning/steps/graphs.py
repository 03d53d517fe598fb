"""The gradients of a batch as one CUDA graph: hundreds of kernels that the device starts
by itself, which small networks and patches gain most from.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trivox.memory import memory_ran_out

WARM_UP = 3
"""Steps before a graph is recorded, in which kernels are chosen and memory is taken."""

Work = Callable[[Any, Any], Tensor]
"""Images and targets to the loss; computes the gradients on the way."""


class StepGraph:
    """Computes `work` of batches, from a graph once it has been recorded.

    Batches of another size, and those that are no tensors, are computed as usual; so
    are all once recording has failed.
    """

    def __init__(self) -> None:
        self.usable = True
        self.forget()

    def forget(self) -> None:
        """Record anew: what is computed, or with which memory, is about to change."""
        self.steps = 0
        self.replay: Callable[[], None] | None = None
        self.inputs: tuple[Tensor, ...] = ()
        self.loss: Tensor | None = None

    def __call__(
        self, work: Work, images: Any, targets: Any, *, say: Callable[[str], None]
    ) -> Tensor:
        """`work(images, targets)`; says why if it cannot be recorded."""
        batch = (images, targets)
        if not self.usable or not all(isinstance(part, Tensor) for part in batch):
            return work(images, targets)
        if self.replay is None:
            self.steps += 1
            if self.steps <= WARM_UP or not self._record(work, batch, say):
                return work(images, targets)
        if any(
            part.shape != static.shape or part.dtype != static.dtype
            for part, static in zip(batch, self.inputs, strict=True)
        ):
            # its gradients lie elsewhere
            self.forget()
            return work(images, targets)
        for static, part in zip(self.inputs, batch, strict=True):
            static.copy_(part, non_blocking=True)
        assert self.replay is not None
        assert self.loss is not None
        self.replay()
        return self.loss.clone()

    def _record(
        self, work: Work, batch: tuple[Tensor, ...], say: Callable[[str], None]
    ) -> bool:
        """Record `work` for batches like this one; whether that was possible."""
        images, targets = (part.clone() for part in batch)
        try:
            # recording must not use up what dropout is drawn from
            with torch.random.fork_rng(devices=[images.device]):
                self.replay, self.loss = record(lambda: work(images, targets))
        except RuntimeError as error:
            if memory_ran_out(error):
                raise
            self.usable = False
            reason = str(error).strip().partition("\n")[0]
            say(f"cuda_graph: not possible here ({reason}); going on without")
            return False
        self.inputs = (images, targets)
        return True


def record(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """A call that computes `work` again, and where its result then lies.

    Other threads may go on using the device meanwhile. Raises `RuntimeError` for work
    that waits for the device.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        loss = work()
    return graph.replay, loss
