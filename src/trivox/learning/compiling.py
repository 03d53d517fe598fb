"""torch.compile with errors that instruct.

The network itself stays as it is, and so do the names of its weights.
"""

import importlib.util
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trivox.errors import ResourceError

COMPILERS = ("g++", "clang++", "c++")


class Compiled(nn.Module):
    """A network that is called in another way; its parameters are those of the network."""

    def __init__(self, network: nn.Module, call: Callable[..., Any]) -> None:
        super().__init__()
        self.network = network
        self.call = call

    def forward(self, *inputs: Any) -> Any:
        """What the network gives."""
        return self.call(*inputs)


def compiled(network: nn.Module, device: torch.device) -> nn.Module:
    """`network`, compiled at its first call; raises `ResourceError` where that is
    impossible.
    """
    if not any(shutil.which(name) for name in COMPILERS):
        raise ResourceError(
            f"compile=true needs a C++ compiler ({', '.join(COMPILERS)}); "
            "install g++ or leave it off"
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise ResourceError(
            "compile=true needs triton on a GPU; run: pip install triton, "
            "or leave it off"
        )
    from torch._dynamo.exc import TorchDynamoException

    optimised = torch.compile(network)

    def call(*inputs: torch.Tensor) -> Any:
        try:
            return optimised(*inputs)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise ResourceError(
                f"torch.compile failed ({reason}); leave compile off"
            ) from error

    return Compiled(network, call)
