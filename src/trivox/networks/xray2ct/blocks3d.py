"""Building blocks of the 3-D U-Net; tensors are `(b, c, z, y, x)`."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.networks.attention import HEAD_DIM, SwinTransformerBlock3D
from trivox.networks.efficient import Pointwise
from trivox.networks.halves import GroupNorm, interpolated
from trivox.networks.layers import Conv3d

GROUP = 8
"""Channels that share a norm: one voxel at the bottom of the U-Net still has something
to be compared with.
"""


def normed(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, group norm, GELU."""
    convolution = Conv3d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(
        convolution, GroupNorm(max(1, outputs // GROUP), outputs), nn.GELU()
    )


class ResidualDenseBlock3D(nn.Module):
    """Convolutions that each see all earlier results, fused by a 1x1x1 one and added to
    the input (Zhang et al. 2018).

    growth: channels that each of the `layers` adds. The fusion starts at zero: the
    block begins as the identity.
    """

    def __init__(self, channels: int, *, layers: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            normed(channels + i * growth, growth) for i in range(layers)
        )
        self.fuse = Pointwise(channels + layers * growth, channels)
        nn.init.zeros_(self.fuse.weight)
        nn.init.zeros_(self.fuse.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        dense = x
        for layer in self.layers:
            dense = torch.cat((dense, layer(dense)), dim=1)
        fused: Tensor = self.fuse(dense)
        return x + fused


class TransformerEnhancedBlock3D(nn.Module):
    """A convolution for what is near beside shifted-window attention for what is far;
    both fused and added to the input.

    The attention works at the multiple of its heads' width below; window: tokens along
    an axis.
    """

    def __init__(self, channels: int, *, window: int) -> None:
        super().__init__()
        width = max(1, channels // HEAD_DIM) * HEAD_DIM
        self.convolution = normed(channels, channels)
        self.widen = Pointwise(channels, width)
        self.attention = SwinTransformerBlock3D(width, window=window)
        self.fuse = Pointwise(channels + width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        both = torch.cat((self.convolution(x), self.attention(self.widen(x))), dim=1)
        fused: Tensor = self.fuse(both)
        return x + fused


class AttentionGate3D(nn.Module):
    """Weighs a skip voxel by voxel, 0 to 1, by what the decoder knows (Oktay et al.
    2018).
    """

    def __init__(self, skip: int, gating: int, *, inner: int) -> None:
        super().__init__()
        self.of_skip = Pointwise(skip, inner)
        self.of_gating = Pointwise(gating, inner)
        self.weight = Pointwise(inner, 1)
        nn.init.constant_(self.weight.bias, 2.0)  # begins nearly open

    def gate(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The weights `(b, 1, z, y, x)`; both inputs have the same size."""
        hidden = F.relu(self.of_skip(skip) + self.of_gating(gating))
        weights: Tensor = torch.sigmoid(self.weight(hidden))
        return weights

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """The skip times its weights."""
        return skip * self.gate(skip, gating)


class EncoderBlock3D(nn.Sequential):
    """Residual dense block and, with a window, attention; keeps size and width."""

    def __init__(
        self, channels: int, *, layers: int, growth: int, window: int | None = None
    ) -> None:
        attention: list[nn.Module] = []
        if window is not None:
            attention.append(TransformerEnhancedBlock3D(channels, window=window))
        dense = ResidualDenseBlock3D(channels, layers=layers, growth=growth)
        super().__init__(dense, *attention)


class DecoderBlock3D(nn.Module):
    """The coarser map doubled in size, joined with its gated skip; then as the encoder
    does.
    """

    def __init__(
        self,
        coarser: int,
        channels: int,
        *,
        layers: int,
        growth: int,
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.up = Pointwise(coarser, channels)
        self.gate = AttentionGate3D(channels, channels, inner=max(4, channels // 2))
        self.join = normed(2 * channels, channels)
        self.refine = EncoderBlock3D(
            channels, layers=layers, growth=growth, window=window
        )

    def forward(self, coarser: Tensor, skip: Tensor) -> Tensor:
        """`(b, coarser, z / 2, y / 2, x / 2)` and the skip `(b, channels, z, y, x)` to
        the latter's shape.
        """
        x = interpolated(self.up(coarser), skip.shape[2:])
        out: Tensor = self.refine(self.join(torch.cat((x, self.gate(skip, x)), dim=1)))
        return out
