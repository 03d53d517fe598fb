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


def compiled(network: nn.Module, device: torch.device) -> nn.Module:
    """`network`, compiled when it is first called in this way; raises `ResourceError`
    where that is impossible.
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
    result: nn.Module = torch.compile(network)  # type: ignore[assignment]
    return result


def explained(network: nn.Module) -> Callable[..., Any]:
    """The forward pass of a compiled network, or of one that holds it, whose first call
    raises `ResourceError` where it cannot be compiled.
    """
    from torch._dynamo.exc import TorchDynamoException

    def forward(*inputs: torch.Tensor) -> Any:
        try:
            return network(*inputs)
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise ResourceError(
                f"torch.compile failed ({reason}); leave compile off"
            ) from error

    return forward
