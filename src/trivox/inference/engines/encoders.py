"""What reads the class of a case asks of the encoder of a network, and who computes it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trivox.inference.engines.graph import WINDOWS
from trivox.inference.engines.kept import Source
from trivox.learning.runtime import Runtime, large_blocks_kept


class Encoder(Protocol):
    """The encoder of one network made ready to compute."""

    def maps(self, window: Tensor) -> list[Tensor]:
        """Feature maps `(1, features, z, y, x)` of all stages, finest first, of a window
        `(1, c, z, y, x)`, in any floating type; they may be overwritten by the next.
        """


class EncoderAlone(nn.Module):
    """A network without its decoder: feature maps of all stages, finest first."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: Tensor) -> tuple[Tensor, ...]:
        """See the class."""
        return tuple(self.network.encode(windows))  # type: ignore[operator]


def encoder_source(source: Source) -> Source:
    """The encoder alone of a network of a plan."""
    names = [f"map{stage}" for stage in range(source.plan.topology.stages)]
    return replace(source, network=EncoderAlone(source.network), outputs=tuple(names))


@dataclass(frozen=True, eq=False)
class TorchEncoder:
    """An encoder in eval mode on the runtime's device."""

    network: nn.Module
    runtime: Runtime

    def maps(self, window: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        with self.runtime.autocast(), large_blocks_kept():
            return list(self.network(window))


@dataclass(frozen=True, eq=False)
class OnnxEncoder:
    """An encoder's graph in a session of ONNX Runtime."""

    session: Any
    outputs: Sequence[str]

    def maps(self, window: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        array = np.ascontiguousarray(window.numpy(), dtype=np.float32)
        answers = self.session.run(self.outputs, {WINDOWS: array})
        return [torch.from_numpy(answer) for answer in answers]


@dataclass(frozen=True, eq=False)
class OpenVinoEncoder:
    """An encoder's graph that OpenVINO compiled for one window at a time."""

    request: Any
    outputs: Sequence[str]

    def maps(self, window: Tensor) -> list[Tensor]:
        """See `Encoder`."""
        array = np.ascontiguousarray(window.numpy(), dtype=np.float32)
        answer = self.request.infer({0: array}, share_inputs=True)
        return [torch.from_numpy(answer[name]) for name in self.outputs]
