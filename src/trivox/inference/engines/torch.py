"""Networks computed by torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from trivox.errors import ResourceError
from trivox.learning.runtime import Runtime, free_cached_memory, out_of_memory

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
        """Logits in the precision of the runtime; in two halves where memory does not
        suffice. Raises `ResourceError` where it does not for a single window.
        """
        try:
            return self._computed(windows)
        except RuntimeError as error:
            self._require_fewer(windows, error)
        # after the handler, whose traceback holds the maps
        free_cached_memory(self.device)
        halves = [self.logits(part) for part in windows.chunk(2)]
        return torch.cat(halves)

    def _computed(self, windows: Tensor) -> Tensor:
        with self.runtime.autocast():
            logits: Tensor = self.network(windows)
        return logits

    def _require_fewer(self, windows: Tensor, error: RuntimeError) -> None:
        """Note that so many windows were too many; raises the error if it is not about
        memory.
        """
        if not out_of_memory(error):
            raise error
        if len(windows) == 1:
            raise ResourceError(
                f"a single window of {tuple(windows.shape[2:])} voxels does not fit into "
                f"the memory of {self.device}; use --device cpu, or close other programs"
            ) from error
        self.room.too_many = windows[:, 0].numel()


def torch_engines(
    networks: Iterable[nn.Module], runtime: Runtime
) -> tuple[TorchEngine, ...]:
    """An engine for each network."""
    return tuple(TorchEngine(network, runtime) for network in networks)
