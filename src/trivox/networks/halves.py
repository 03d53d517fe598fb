"""Half precision on a GPU with a fraction of the kernels: all weights are brought to it
at once, and norms stay in it.

torch's autocast brings every weight to it alone, and every gradient back: hundreds of
kernels a step for a network of many small layers; and it takes norms, with what they
work on, to fp32. The weights that are learnt stay fp32 either way.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn


class _Halves(torch.autograd.Function):
    """Copies in bf16, and the gradients back in fp32, each in one kernel."""

    @staticmethod
    def forward(ctx: Any, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return _copied(weights, torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [gradient for gradient in gradients if gradient is not None]
        copies = iter(_copied(there, torch.float32))
        return tuple(None if part is None else next(copies) for part in gradients)


def _copied(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)


def in_bf16(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in bf16, for `torch.func.functional_call`."""
    return dict(zip(weights, _Halves.apply(*weights.values()), strict=True))


def wants_halves(device: torch.device) -> bool:
    """Whether autocast is at work on a GPU in bf16 and all weights may be brought there
    at once: ranks exchange gradients while others are still computed, and a compiler
    joins kernels by itself.
    """
    return (
        device.type == "cuda"
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
        and not torch.compiler.is_compiling()
        and not (
            torch.distributed.is_available() and torch.distributed.is_initialized()
        )
    )


def _as_given(x: Tensor, weight: Tensor) -> AbstractContextManager[object]:
    """Where autocast would take a norm to fp32: not if map and weights are in bf16 on a
    GPU, whose kernel adds up in fp32 by itself.
    """
    half = x.dtype == weight.dtype == torch.bfloat16
    if half and x.device.type == "cuda":
        return torch.autocast("cuda", enabled=False)
    return nullcontext()


class GroupNorm(nn.GroupNorm):
    """torch's; in bf16 on a GPU if map and weights are."""

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, ...)` to the same."""
        with _as_given(x, self.weight):
            return super().forward(x)


class LayerNorm(nn.LayerNorm):
    """torch's; in bf16 on a GPU if tokens and weights are."""

    def forward(self, x: Tensor) -> Tensor:
        """`(..., c)` to the same."""
        with _as_given(x, self.weight):
            return super().forward(x)
