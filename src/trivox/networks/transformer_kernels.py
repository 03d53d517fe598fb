"""Parts of transformers on a GPU, with the kernels that they need and no more.

Attention among few tokens computes all logits of a group at once: a fused kernel wants
its bias filled up and its mask made a bias, each by kernels more.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trivox.uploads import constant

FEW = 1 << 20
"""Values of a map for which a GPU needs less time than for the start of kernels."""
SMALL = 64**2
"""Pairs of tokens of a window of 4 along each axis."""


def is_small(query: Tensor, key: Tensor, *, most: int = SMALL) -> bool:
    """Whether a GPU needs less for all logits of a group at once, at most so many, than
    a fused kernel does for the padding of its bias.
    """
    return query.is_cuda and query.shape[-2] * key.shape[-2] <= most


def attended_in_full(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    bias: Tensor,
    hidden: Tensor | None = None,
) -> Tensor:
    """Attention as its formula says; the softmax is computed in fp32 by its kernel.

    Queries `(n, heads, t, d)`, keys and values `(n, heads, k, d)`; bias of the logits
    `(n or 1, heads or 1, t or 1, k)`; hidden `(n, 1, t or 1, k)`, minus infinity where a key
    must not be seen, otherwise 0: each query sees one at least. Result `(n, heads, t, d)`.
    """
    with torch.autocast(query.device.type, enabled=False):
        attended: Tensor = _Attention.apply(query, key, value, bias, hidden)
        return attended


class _Attention(torch.autograd.Function):
    """softmax(q k^T / sqrt(d) + bias) v, with scale and bias in the kernel of the first
    product, and the scale in those of its derivatives.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        bias: Tensor,
        hidden: Tensor | None,
    ) -> Tensor:
        n, heads, t, d = query.shape
        ctx.scale = d**-0.5
        ctx.bias = bias.shape
        q, k, v = (part.flatten(0, 1) for part in (query, key, value))
        shape = (n, heads, t, key.shape[-2])
        shown = bias.expand(shape)
        if hidden is not None:
            shown = torch.add(shown, hidden, out=bias.new_empty(shape))
        start = shown.flatten(0, 1)
        logits = torch.empty_like(start, memory_format=torch.contiguous_format)
        torch.baddbmm(start, q, k.mT, alpha=ctx.scale, out=logits)
        weights = logits.softmax(-1)
        ctx.save_for_backward(q, k, v, weights)
        attended: Tensor = (weights @ v).unflatten(0, (n, heads))
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, weights = ctx.saved_tensors
        shape = gradients[0].shape[:2]
        gradient = gradients[0].flatten(0, 1)
        of_value = weights.mT @ gradient
        of_weights = gradient @ v.mT
        of_logits = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
        of_query = torch.baddbmm(q, of_logits, k, beta=0, alpha=ctx.scale)
        of_key = torch.baddbmm(k, of_logits.mT, q, beta=0, alpha=ctx.scale)
        parts = (of_query, of_key, of_value)
        of_query, of_key, of_value = (part.unflatten(0, shape) for part in parts)
        of_bias = None
        if ctx.needs_input_grad[3]:
            of_bias = of_logits.unflatten(0, shape).sum_to_size(ctx.bias)
        return of_query, of_key, of_value, of_bias, None


def with_branch(tokens: Tensor, scale: Tensor, branch: Tensor) -> Tensor:
    """Tokens `(b, n, c)` and a branch of them times its scale `(c,)`."""
    alike = tokens.dtype == branch.dtype
    if tokens.is_cuda and alike and tokens.numel() <= FEW:
        added: Tensor = _Branch.apply(tokens, scale, branch)
        return added
    return tokens + scale * branch


class _Branch(torch.autograd.Function):
    """A scaled sum in one kernel, and its derivatives in one: those of a batch norm whose
    statistics are given, 0 and 1.
    """

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, scale: Tensor, branch: Tensor) -> Tensor:
        ctx.save_for_backward(scale, branch)
        return torch.addcmul(tokens, scale, branch, out=torch.empty_like(tokens))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scale, branch = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        channels = len(scale)
        of_branch, of_scale, _ = torch.ops.aten.native_batch_norm_backward(
            gradient.view(-1, channels),
            branch.reshape(-1, channels),
            scale,
            constant((0.0,) * channels, scale.device),
            constant((1.0,) * channels, scale.device),
            None,
            None,
            False,
            0.0,
            [True, True, False],
        )
        return gradient, of_scale, of_branch.view(gradient.shape)


def gated(both: Tensor) -> Tensor:
    """SiLU of the first half of the channels `(..., 2 c)` times the second one."""
    if both.is_cuda:
        product: Tensor = _Gated.apply(both)
        return product
    gate, value = both.chunk(2, dim=-1)
    return F.silu(gate) * value


class _Gated(torch.autograd.Function):
    """Gradients of both halves are written where they belong."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        gate, value = both.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(both, opened)
        return opened * value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        both, opened = ctx.saved_tensors
        gate, value = both.chunk(2, dim=-1)
        result = torch.empty_like(both)
        of_gate, of_value = result.chunk(2, dim=-1)
        torch.mul(gradients[0], opened, out=of_value)
        closing = torch.ops.aten.silu_backward.grad_input
        closing(gradients[0] * value, gate, grad_input=of_gate)
        return result


class SwiGLU(nn.Module):
    """Gated feed-forward layer with 8/3 of the width inside (Shazeer 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = round(channels * 8 / 3 / 16) * 16
        self.gate = nn.Linear(channels, 2 * inner, bias=False)
        self.project = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = self.project(gated(self.gate(x)))
        return out


def moved(tokens: Tensor, forth: Tensor, back: Tensor) -> Tensor:
    """Tokens `(b, n, c)` at the places `forth`, where `back` finds each of the `n`; what
    comes from a token a second time has no gradient.
    """
    if tokens.is_cuda:
        there: Tensor = _Moved.apply(tokens, forth, back)
        return there
    return tokens.index_select(1, forth)


class _Moved(torch.autograd.Function):
    """Gradients are moved back, where others would be added up."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, forth: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(forth, back)
        return tokens.index_select(1, forth)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        forth, back = ctx.saved_tensors
        return _Moved.apply(gradients[0], back, forth), None, None
