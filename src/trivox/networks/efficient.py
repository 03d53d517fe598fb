"""Lean convolutional blocks: depthwise separable convolution, MBConv with
squeeze-excitation, shuffle attention.

Tensors are `(b, c, z, y, x)` in torch's channels-last layout, where pointwise layers
are plain matrix products on the channels and depthwise convolutions are several times
faster than in the default layout.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.networks.depthwise import DepthwiseConv3d
from trivox.networks.layers import InstanceNorm, instance_norm


class Pointwise(nn.Linear):
    """A 1x1x1 convolution as a matrix product over the channels of `(b, c, z, y, x)`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(b, inputs, z, y, x)` to `(b, outputs, z, y, x)`."""
        channels_last = x.movedim(1, -1)
        if not x.is_cuda or channels_last.is_contiguous():
            return super().forward(channels_last).movedim(-1, 1)
        # no copies of the map in another layout, forward and back
        kernel = self.weight[:, :, None, None, None]
        return F.conv3d(x, kernel, self.bias)


class DropPath(nn.Module):
    """Drops a residual branch for whole samples with probability `rate` in training
    (Huang et al. 2016).
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """The branch, or zeros for the dropped samples; kept samples are scaled by 1 /
        (1 - rate).
        """
        if not self.training or self.rate == 0:
            return x
        keep = torch.rand(len(x), device=x.device) >= self.rate
        factor = (keep / (1 - self.rate)).to(x.dtype)
        return x * factor.reshape(-1, *[1] * (x.ndim - 1))


class DepthwiseSeparableConv3D(nn.Module):
    """Depthwise convolution, pointwise convolution, norm, SiLU, and a skip where the
    width stays (Howard et al. 2017).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        *,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv3d(inputs, kernel)
        self.pointwise = Pointwise(inputs, outputs, bias=False)
        self.norm = InstanceNorm(outputs)
        self.drop_path = DropPath(drop_path)
        self.skip = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """`(b, inputs, z, y, x)` to `(b, outputs, z, y, x)`."""
        out = F.silu(self.norm(self.pointwise(self.depthwise(x))))
        return x + self.drop_path(out) if self.skip else out


class SqueezeExcitation3D(nn.Module):
    """Gates each channel by what the whole image holds (Hu et al. 2018); `reduced` is
    the width in between.
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, reduced)
        self.excite = nn.Linear(reduced, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, each channel times a number in 0..1."""
        # So its gradient comes channels-last, as that of the product below.
        mean = x.movedim(1, -1).mean((1, 2, 3))
        gate = torch.sigmoid(self.excite(F.silu(self.squeeze(mean))))
        return x * gate.to(x.dtype)[:, :, None, None, None]


class MBConvBlock(nn.Module):
    """Mobile inverted bottleneck with a skip (Tan & Le 2019).

    order "expand-first" (classic): expand, depthwise, squeeze-excitation, project.
    order "depthwise-first": the depthwise convolution runs at the block's own width (as
    in ConvNeXt), which costs a fraction where voxels are many.
    """

    def __init__(
        self,
        channels: int,
        kernel: Sequence[int],
        *,
        expansion: int,
        order: Literal["expand-first", "depthwise-first"] = "expand-first",
        squeeze: float = 0.25,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        width = channels * expansion
        layers: list[nn.Module] = [
            Pointwise(channels, width, bias=False),
            InstanceNorm(width),
            nn.GELU(),
        ]
        if order == "depthwise-first":
            layers = [
                DepthwiseConv3d(channels, kernel),
                InstanceNorm(channels),
                Pointwise(channels, width),
                nn.GELU(),
            ]
        else:
            layers += [DepthwiseConv3d(width, kernel), InstanceNorm(width), nn.GELU()]
            if squeeze:
                reduced = max(8, round(channels * squeeze))
                layers.append(SqueezeExcitation3D(width, reduced))
        self.layers = nn.Sequential(*layers)
        self.project = Pointwise(width, channels, bias=False)
        self.norm = InstanceNorm(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        branch: Tensor = self.drop_path(self.norm(self.project(self.layers(x))))
        return x + branch


class ShuffleAttention3D(nn.Module):
    """Channel gates on half of each group, spatial gates on the rest, then a channel
    shuffle (SA-Net, Zhang & Yang 2021).

    About 3 * channels / groups parameters. Gates begin as sigmoid(1) everywhere.
    """

    def __init__(self, channels: int, groups: int = 8) -> None:
        super().__init__()
        while channels % (2 * groups):
            groups //= 2
        self.groups = groups
        half = channels // (2 * groups)
        self.channel_weight = nn.Parameter(torch.zeros(half))
        self.channel_bias = nn.Parameter(torch.ones(half))
        self.spatial_weight = nn.Parameter(torch.zeros(half))
        self.spatial_bias = nn.Parameter(torch.ones(half))
        self.spatial_norm = InstanceNorm(half)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape; channel `2 i + j` of the result comes from half `j` of the
        input's gated channels.
        """
        b, c, *size = x.shape
        # (b, z, y, x, group, half, c)
        grouped = x.movedim(1, -1).reshape(b, *size, self.groups, 2, -1)
        by_channel = grouped[..., 0, :]
        mean = by_channel.mean((1, 2, 3), keepdim=True)
        channel_gate = torch.sigmoid(mean * self.channel_weight + self.channel_bias)
        by_place = grouped[..., 1, :]
        normed = self._norm(by_place)
        place_gate = torch.sigmoid(normed * self.spatial_weight + self.spatial_bias)
        gated = [
            by_channel * channel_gate.to(x.dtype),
            by_place * place_gate.to(x.dtype),
        ]
        # As two halves of all channels, which are then shuffled.
        halves = torch.stack(gated, dim=-2).reshape(b, *size, 2, c // 2)
        return halves.transpose(-1, -2).reshape(b, *size, c).movedim(-1, 1)

    def _norm(self, x: Tensor) -> Tensor:
        """Instance norm of each channel of each group, with parameters that the groups
        share.
        """
        b, *size, groups, half = x.shape
        merged = x.reshape(b, *size, groups * half).movedim(-1, 1)
        norm = self.spatial_norm
        weight = norm.weight.repeat(groups)
        bias = norm.bias.repeat(groups)
        out = instance_norm(merged, weight, bias, norm.eps)
        return out.movedim(1, -1).reshape(x.shape)
