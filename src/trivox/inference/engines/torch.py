"""Networks computed by torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from trivox.inference.engines.engine import Split
from trivox.inference.engines.split import last_layer, without_last
from trivox.learning.microbatch import in_parts
from trivox.learning.runtime import Runtime

VOXELS_A_BATCH = {"cpu": 2**18, "cuda": 2**23}
"""Patch voxels a forward pass.

On a CPU one window of 64^3 stays in its cache and takes 0.35 s, in a batch of two 0.52
s each (31 M parameters, bf16); a GPU wants to be kept busy.
"""
VOXELS_ELSEWHERE = 2**21


@dataclass
class Room:
    """Patch voxels that were seen not to fit into memory at once; none so far."""

    too_many: int | None = None


@dataclass(frozen=True, eq=False)
class TorchEngine:
    """A network in eval mode on the runtime's device."""

    name: ClassVar[str] = "torch"

    network: nn.Module
    runtime: Runtime
    room: Room = field(default_factory=Room)

    @property
    def device(self) -> torch.device:
        """Where the network lies."""
        return self.runtime.device

    @property
    def precision(self) -> str:
        """That of the runtime."""
        return self.runtime.precision

    @property
    def voxels_a_batch(self) -> int:
        """Patch voxels a forward pass; half as many as did not fit into memory."""
        usual = VOXELS_A_BATCH.get(self.runtime.device.type, VOXELS_ELSEWHERE)
        tried = self.room.too_many
        return usual if tried is None else min(usual, tried // 2)

    def logits(self, windows: Tensor) -> Tensor:
        """Logits in the precision of the runtime; in halves where memory does not
        suffice. Raises `ResourceError` where it does not for a single window.
        """
        logits: Tensor = in_parts(
            self._computed, windows, self.device, too_many=self._note
        )
        return logits

    def _computed(self, windows: Tensor) -> Tensor:
        with self.runtime.autocast():
            logits: Tensor = self.network(windows)
        return logits

    def split(self) -> Split | None:
        """See `trivox.inference.engines.engine.Engine`; a GPU computes networks whole."""
        layer = last_layer(self.network)
        if layer is None or self.device.type != "cpu":
            return None
        return replace(self, network=without_last(self.network)), layer

    def _note(self, windows: Tensor) -> None:
        """So many windows are too many."""
        self.room.too_many = windows[:, 0].numel()


def torch_engines(
    networks: Iterable[nn.Module], runtime: Runtime
) -> tuple[TorchEngine, ...]:
    """An engine for each network."""
    return tuple(TorchEngine(network, runtime) for network in networks)


def time_convolutions(runtime: Runtime) -> None:
    """Have cuDNN try its ways to compute a convolution and take the fastest: windows
    have few sizes, so it does that once. Not where the user wants what repeats exactly.
    """
    exact = torch.are_deterministic_algorithms_enabled()
    if runtime.device.type == "cuda" and not exact:
        torch.backends.cudnn.benchmark = True
