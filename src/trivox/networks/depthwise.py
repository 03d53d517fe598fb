"""Depthwise 3-D convolution whose backward pass is as cheap as its forward pass;
tensors are `(b, c, z, y, x)`.

torch's own backward pass of a depthwise convolution costs several times a dense one of
the same width (measured in bf16 on a CPU; pytorch #37406 says the same of GPUs). Here
the gradient of the input is a forward convolution with the mirrored kernel. That of the
weights is one too on a CPU, of the input with the gradient as the kernel; on a GPU it
comes from a convolution in dense blocks.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 16
"""Channels of a dense block."""


class _DepthwiseConvolution(torch.autograd.Function):
    """Odd kernels, zero padding of (k - 1) / 2, any stride."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, stride: tuple[int, int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv3d(
            x, weight, stride=stride, padding=_padding(weight), groups=len(weight)
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=_layout(x))
        for_input = for_weight = None
        on_cpu = x.device.type == "cpu"
        if ctx.needs_input_grad[0] or on_cpu:
            spread = _spread(gradient, x.shape[2:], ctx.stride)
        if ctx.needs_input_grad[0]:
            for_input = F.conv3d(
                spread,
                weight.flip(2, 3, 4),
                padding=_padding(weight),
                groups=len(weight),
            )
        if ctx.needs_input_grad[1]:
            if on_cpu:
                for_weight = _correlation(x, spread, _padding(weight))
            else:
                kernel = weight.shape[2:]
                for_weight = _weight_gradient(x, gradient, kernel, ctx.stride)
            for_weight = for_weight.to(weight.dtype)
        return for_input, for_weight, None


def _padding(weight: Tensor) -> list[int]:
    return [(k - 1) // 2 for k in weight.shape[2:]]


def _layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last_3d)
    return torch.channels_last_3d if last else torch.contiguous_format


def _spread(gradient: Tensor, size: Sequence[int], stride: Sequence[int]) -> Tensor:
    """Put zeros between the entries, so that a strided convolution looks like one
    without stride.
    """
    if max(stride) == 1:
        return gradient
    spread = torch.empty(
        (*gradient.shape[:2], *size),
        dtype=gradient.dtype,
        device=gradient.device,
        memory_format=_layout(gradient),
    )
    spread.zero_()
    z, y, x = stride
    spread[:, :, ::z, ::y, ::x] = gradient
    return spread


def _correlation(x: Tensor, gradient: Tensor, padding: Sequence[int]) -> Tensor:
    """The weights' gradient as a depthwise convolution of x with the gradient as its
    kernel, `(c, 1, *kernel)`.

    Half to nine tenths of the time of dense blocks (twice theirs in fp32 from about
    96^3 voxels on), and none of the false sums that torch 2.13 gives for them in bf16
    where a map has fewer planes than the kernel (see `layers.Conv3d`).
    """
    gradients = [
        F.conv3d(sample, kernel[:, None], padding=tuple(padding), groups=x.shape[1])[0]
        for sample, kernel in zip(x.split(1), gradient, strict=True)
    ]
    if len(gradients) == 1:
        return gradients[0][:, None]
    exact = torch.promote_types(x.dtype, torch.float32)
    return torch.stack(gradients).sum(0, dtype=exact)[:, None]


def _weight_gradient(
    x: Tensor, gradient: Tensor, kernel: Sequence[int], stride: Sequence[int]
) -> Tensor:
    """The diagonal of the weights' gradient of a convolution in dense blocks of 16
    channels, `(c, 1, *kernel)`.

    Sixteen times the arithmetic, but at the speed of dense convolutions.
    """
    channels = x.shape[1]
    width = math.gcd(channels, BLOCK)
    blocks = channels // width
    weight = torch.empty(channels, width, *kernel, dtype=x.dtype, device=x.device)
    padding = [(k - 1) // 2 for k in kernel]
    _, blockwise, _ = torch.ops.aten.convolution_backward(
        gradient,
        x,
        weight,
        None,
        stride,
        padding,
        [1, 1, 1],
        False,
        [0, 0, 0],
        blocks,
        [False, True, False],
    )
    squares = blockwise.reshape(blocks, width, width, -1)
    diagonal = squares.diagonal(dim1=1, dim2=2)  # (block, offset, channel)
    result: Tensor = diagonal.transpose(1, 2).reshape(channels, 1, *kernel)
    return result


class DepthwiseConv3d(nn.Conv3d):
    """One filter a channel, without bias; keeps the size (odd kernels) or divides it by
    the stride, rounding up.
    """

    def __init__(
        self, channels: int, kernel: Sequence[int], stride: Sequence[int] = (1, 1, 1)
    ) -> None:
        size = tuple(kernel)
        step = tuple(stride)
        padding = tuple((k - 1) // 2 for k in size)
        super().__init__(
            channels,
            channels,
            size,  # type: ignore[arg-type]
            stride=step,  # type: ignore[arg-type]
            padding=padding,  # type: ignore[arg-type]
            groups=channels,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, z, y, x)` to the same, divided by the stride."""
        weight = self.weight
        device = x.device.type
        autocast = torch.amp.is_autocast_available(device)
        if autocast and torch.is_autocast_enabled(device):
            # Autocast itself does not reach into a function of our own.
            kind = torch.get_autocast_dtype(device)
            x = x.to(kind)
            weight = weight.to(kind)
        result: Tensor = _DepthwiseConvolution.apply(x, weight, self.stride)
        return result
