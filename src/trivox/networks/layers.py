"""Building blocks of the U-Nets; tensors are `(b, c, z, y, x)`.

Kernels are given an axis, so the same layers serve slices (a kernel of 1 along z) and
volumes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trivox.errors import RecipeError

HALF_PRECISION = (torch.float16, torch.bfloat16)
SLOPE = 0.01
"""Negative slope of the leaky ReLU (nnU-Net)."""


def instance_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Each channel of each sample of `(b, c, z, y, x)` to mean 0 and variance 1, then
    scaled and shifted `(c,)`.

    A group norm of one channel a group. A batch norm of each sample, or of the channels
    of all as those of one, is the same and keeps the layout: where torch's group norm is
    slow (channels-last maps on a CPU), and for half precision on a GPU, where autocast
    would make fp32 of the map and of all that is computed from it. Graphs for other
    programs have torch's own instance norm, which OpenVINO computes without changing the
    layout.
    """
    if torch.compiler.is_exporting():
        return F.instance_norm(x, None, None, weight, bias, True, 0.0, eps)
    if x.device.type == "cpu":
        channels_last = x.is_contiguous(memory_format=torch.channels_last_3d)
        by_sample = channels_last and not x.is_contiguous()
    else:
        by_sample = x.dtype in HALF_PRECISION
    if not by_sample:
        return F.group_norm(x, x.shape[1], weight, bias, eps)
    if len(x) == 1:
        return _batch_norm(x, weight, bias, eps)
    if not x.is_contiguous():
        return torch.cat([_batch_norm(part, weight, bias, eps) for part in x.split(1)])
    channels = x.view(1, -1, *x.shape[2:])
    normed = _batch_norm(channels, weight.repeat(len(x)), bias.repeat(len(x)), eps)
    # to autograd no view, which an activation in place would have to copy
    together: Tensor = torch.ops.aten._unsafe_view(normed, x.shape)
    return together


def _batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.batch_norm(x, weight, bias, None, None, True, 0.0, eps, False)


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation with scale and shift (see `instance_norm`).

    The same numbers as `nn.InstanceNorm3d(affine=True)` from the same parameters, but
    several times faster in bf16 on CPUs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, z, y, x)` to the same; on a CPU in the same memory format."""
        return instance_norm(x, self.weight, self.bias, self.eps)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "instance": InstanceNorm,
    "torch-instance": partial(nn.InstanceNorm3d, affine=True),
    "batch": nn.BatchNorm3d,
}
"""Normalisations that a U-Net may have, by name; torch's instance norm rounds otherwise
than ours, and to the last bit as in the networks that were trained with it.
"""


def require_norm(name: str) -> None:
    """Raise `RecipeError` for a normalisation that does not exist."""
    if name not in NORMS:
        raise RecipeError(
            f"norm '{name}' does not exist; choose one of {', '.join(NORMS)}"
        )


def convolution(
    inputs: int,
    outputs: int,
    kernel: Sequence[int],
    stride: Sequence[int] | None = None,
) -> nn.Conv3d:
    """A convolution that keeps the size (odd kernels) or divides it by the stride."""
    size = tuple(kernel)
    padding = tuple((k - 1) // 2 for k in size)
    step = tuple(stride or (1, 1, 1))
    return Conv3d(inputs, outputs, size, stride=step, padding=padding)  # type: ignore[arg-type]


class Conv3d(nn.Conv3d):
    """torch's, of odd kernels that keep the size or have a stride, with the right
    weight gradient in bf16 on CPUs too.

    torch 2.13's reads past its buffers (oneDNN, avx512_core_bf16) where a map has fewer
    planes than the kernel, 2 and 3 for example: garbage or NaN. One plane of the
    padding's zeros more, and one of the result less, change nothing else.
    """

    def forward(self, x: Tensor) -> Tensor:
        """As torch's."""
        short = self.kernel_size[0] - x.shape[2]
        if (
            short <= 0
            or self.stride[0] > 1
            or x.device.type != "cpu"
            or not torch.is_autocast_enabled("cpu")
        ):
            return super().forward(x)
        return super().forward(F.pad(x, (0, 0, 0, 0, 0, short)))[:, :, : x.shape[2]]


class Recomputing(nn.Module):
    """A network that, with `gradient_checkpointing`, keeps a part's input alone and
    computes the rest again for backward.
    """

    gradient_checkpointing = False

    def _run(self, part: Callable[..., Tensor], *inputs: Any) -> Tensor:
        if not (self.gradient_checkpointing and self.training):
            return part(*inputs)
        out: Tensor = checkpoint(part, *inputs, use_reentrant=False)
        return out


class ConvBlock(nn.Sequential):
    """Convolution, norm, leaky ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int] | None = None,
        norm: str = "instance",
    ) -> None:
        super().__init__(
            convolution(inputs, outputs, kernel, stride),
            NORMS[norm](outputs),
            nn.LeakyReLU(SLOPE, inplace=True),
        )


class ResidualBlock(nn.Module):
    """Two convolutions and a skip (ResNet-D: average pooling where strided, 1x1x1
    convolution where widths differ).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int],
        norm: str = "instance",
    ) -> None:
        super().__init__()
        self.first = ConvBlock(inputs, outputs, kernel, stride, norm)
        self.second = nn.Sequential(
            convolution(outputs, outputs, kernel), NORMS[norm](outputs)
        )
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)
        step = tuple(stride)
        skip: list[nn.Module] = []
        if any(s > 1 for s in step):
            skip.append(nn.AvgPool3d(step, step))  # type: ignore[arg-type]
        if inputs != outputs:
            skip.append(nn.Conv3d(inputs, outputs, 1, bias=False))
            skip.append(NORMS[norm](outputs))
        self.skip = nn.Sequential(*skip)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, inputs, z, y, x)` to `(b, outputs, z, y, x)` divided by the stride."""
        out: Tensor = self.activation(self.second(self.first(x)) + self.skip(x))
        return out


class UpSample(nn.ConvTranspose3d):
    """Transposed convolution whose kernel equals its stride."""

    def __init__(self, inputs: int, outputs: int, stride: Sequence[int]) -> None:
        step = tuple(stride)
        super().__init__(inputs, outputs, step, stride=step)  # type: ignore[arg-type]


def initialise(network: nn.Module) -> None:
    """He-normal weights for the leaky ReLU, zero biases; the last norm of a residual
    block starts at zero (identity).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            norm = module.second[1]
            assert isinstance(norm, nn.GroupNorm | nn.InstanceNorm3d | nn.BatchNorm3d)
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)


def parameters_of(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)
