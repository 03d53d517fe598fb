"""Networks computed by torch."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trivox.learning.runtime import Runtime

VOXELS_A_BATCH = {"cpu": 2**18, "cuda": 2**23}
"""Patch voxels a forward pass.

On a CPU one window of 64^3 stays in its cache and takes 0.35 s, in a batch of two 0.52
s each (31 M parameters, bf16); a GPU wants to be kept busy.
"""
VOXELS_ELSEWHERE = 2**21


@dataclass(frozen=True, eq=False)
class TorchEngine:
    """A network in eval mode on the runtime's device."""

    network: nn.Module
    runtime: Runtime

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
        """Patch voxels a forward pass."""
        return VOXELS_A_BATCH.get(self.runtime.device.type, VOXELS_ELSEWHERE)

    def logits(self, windows: Tensor) -> Tensor:
        """Logits in the precision of the runtime."""
        with self.runtime.autocast():
            logits: Tensor = self.network(windows)
        return logits


def torch_engines(
    networks: Iterable[nn.Module], runtime: Runtime
) -> tuple[TorchEngine, ...]:
    """An engine for each network."""
    return tuple(TorchEngine(network, runtime) for network in networks)
