"""Half precision on a GPU with a fraction of the kernels: all weights are brought to it
at once, and norms and interpolation stay in it.

torch's autocast brings every weight to it alone, and every gradient back: hundreds of
kernels a step for a network of many small layers; and it takes norms, with what they
work on, to fp32. The weights that are learnt stay fp32 either way.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trivox.uploads import made_once, sent

LINEAR = {2: "bilinear", 3: "trilinear"}
ADJOINTS = {
    2: torch.ops.aten.upsample_bilinear2d_backward,
    3: torch.ops.aten.upsample_trilinear3d_backward,
}
"""Of linear interpolation, by the number of axes."""
ENTRIES = 1 << 22
"""Of a matrix that doubles a map: 8 MB."""
PRODUCTS = 1 << 30
"""With such a matrix: less time for a GPU than the start of the kernels that it saves."""


class _Brought(torch.autograd.Function):
    """Copies in another type, and the gradients back in that of the first, each in one
    kernel.
    """

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.dtype = tensors[0].dtype
        return _copied(tensors, dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        there = [gradient for gradient in gradients if gradient is not None]
        copies = iter(_copied(there, ctx.dtype))
        back = [None if part is None else next(copies) for part in gradients]
        return None, *back


def _copied(tensors: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, list(tensors))
    return tuple(copies)


def in_type(tensors: Sequence[Tensor], dtype: torch.dtype) -> Sequence[Tensor]:
    """Tensors of one type in another, all at once."""
    if not tensors or tensors[0].dtype == dtype:
        return tensors
    copies: tuple[Tensor, ...] = _Brought.apply(dtype, *tensors)
    return copies


def in_bf16(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights in bf16, for `torch.func.functional_call`."""
    halves = in_type(list(weights.values()), torch.bfloat16)
    return dict(zip(weights, halves, strict=True))


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


class _Interpolated(torch.autograd.Function):
    """Linear interpolation in bf16; what the gradients of a voxel add up to, in fp32,
    which takes two kernels more.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        with torch.autocast("cuda", enabled=False):
            return F.interpolate(x, size=size, mode=LINEAR[len(size)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        size = gradients[0].shape[2:]
        adjoint = ADJOINTS[len(size)]
        summed = adjoint(gradients[0].float(), size, ctx.shape, False)
        return summed.to(gradients[0].dtype), None


def _doubled_by_matrix(x: Tensor, size: tuple[int, ...]) -> bool:
    """Whether a map is made twice as large along each axis, and is so small that a
    product with a matrix does it: one kernel, one for its gradient, both of which add up
    in fp32, and weights that bf16 holds exactly.
    """
    doubled = all(new == 2 * old for new, old in zip(size, x.shape[2:], strict=True))
    count = math.prod(size)
    few = count * x[0, 0].numel() <= ENTRIES and count * x.numel() <= PRODUCTS
    return doubled and few and x.is_contiguous()


@made_once(16)
def _interpolation(
    shape: tuple[int, ...], size: tuple[int, ...], device: torch.device
) -> Tensor:
    """Weights `(values, 1, *size)` with which each value of a map of a shape enters
    another size, in bf16.
    """
    values = math.prod(shape)
    each = torch.eye(values).view(values, 1, *shape)
    weights = F.interpolate(each, size=size, mode=LINEAR[len(size)])
    return sent(weights.to(torch.bfloat16), device)


def interpolated(x: Tensor, size: Sequence[int]) -> Tensor:
    """Linear interpolation of `(b, c, rows, columns)` or `(b, c, z, y, x)` to another
    size; of bf16 on a GPU in bf16, which autocast would take to fp32, and all that is
    computed from it.
    """
    size = tuple(size)
    if not x.is_cuda or x.dtype != torch.bfloat16:
        return F.interpolate(x, size=size, mode=LINEAR[len(size)])
    if _doubled_by_matrix(x, size):
        weights = _interpolation(x.shape[2:], size, x.device).flatten(1)
        doubled = torch.bmm(x.flatten(2), weights.expand(len(x), -1, -1))
        return doubled.view(*x.shape[:2], *size)
    half: Tensor = _Interpolated.apply(x, size)
    return half
