"""The hybrid U-Net: a lean convolutional pyramid down to 1/8, attention at 1/8 and
1/16, a decoder no wider than its skips.

Per stage: convolution blocks, transformer blocks, shuffle attention. Full resolution
has depthwise separable convolutions, 1/2 has MBConv blocks at their own width, below
are MBConv blocks with squeeze-excitation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.errors import RecipeError
from trivox.networks.attention import (
    MultiHeadSelfAttention3D,
    SwinTransformerBlock3D,
    TransformerBlock3D,
)
from trivox.networks.deformable import DeformableAttention3D
from trivox.networks.depthwise import DepthwiseConv3d
from trivox.networks.efficient import (
    DepthwiseSeparableConv3D,
    DropPath,
    MBConvBlock,
    Pointwise,
    ShuffleAttention3D,
)
from trivox.networks.layers import InstanceNorm, Recomputing, convolution
from trivox.planning.topology import Topology

AttentionKind = Literal["default", "none", "swin", "deformable", "global"]
EIGHTH = 3
SIXTEENTH = 4
"""Stages with attention."""


@dataclass(frozen=True)
class HybridSize:
    """What distinguishes the sizes besides widths and block counts, which stand in the
    topology.
    """

    expansion: tuple[int, ...]
    """Of the MBConv blocks of each stage; the first stage has none."""
    decoder_expansion: tuple[int, ...]
    eighth: int
    """Transformer blocks at 1/8, windows and grids in turn."""
    sixteenth: int
    """Transformer blocks over all tokens at 1/16."""
    drop_path: float
    """Rate of stochastic depth at the deepest block, unless given otherwise."""


HYBRID_SIZES = {
    "lite": HybridSize(
        expansion=(1, 2, 3, 4, 4),
        decoder_expansion=(1, 2, 2, 2),
        eighth=2,
        sixteenth=6,
        drop_path=0.05,
    ),
    "base": HybridSize(
        expansion=(1, 2, 4, 4, 4),
        decoder_expansion=(1, 2, 2, 4),
        eighth=4,
        sixteenth=5,
        drop_path=0.1,
    ),
    "large": HybridSize(
        expansion=(1, 2, 4, 4, 4),
        decoder_expansion=(1, 2, 4, 4),
        eighth=4,
        sixteenth=5,
        drop_path=0.2,
    ),
}


class HybridEncoderBlock(nn.Module):
    """A stage: convolution blocks, then transformer blocks, then shuffle attention;
    each may be empty.
    """

    def __init__(
        self,
        convolutions: Sequence[nn.Module],
        attention: Sequence[nn.Module],
        gate: nn.Module,
    ) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*convolutions)
        self.attention = nn.Sequential(*attention)
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        out: Tensor = self.gate(self.attention(self.convolutions(x)))
        return out


class HybridUNet(Recomputing):
    """Encoder, lean decoder and a 1x1x1 head at every decoder resolution.

    In training with `deep_supervision` the forward pass returns the logits of all heads
    at their own scale, finest first; otherwise only the finest, `(b, outputs, z, y,
    x)`. Any input size will do: odd sizes are rounded up on the way down and
    interpolated to the skip's size on the way up. `attention="none"` leaves out all
    transformer blocks.
    """

    def __init__(
        self,
        topology: Topology,
        size: HybridSize,
        *,
        channels: int,
        outputs: int,
        deep_supervision: bool = True,
        attention: str = "default",
        drop_path: float,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _require_attention(attention)
        self.topology = topology
        self.deep_supervision = deep_supervision
        features = topology.features
        stages = range(topology.stages)
        finer_stages = range(topology.stages - 1)
        self.stem = nn.Sequential(
            convolution(channels, features[0], topology.kernels[0]),
            InstanceNorm(features[0]),
            nn.SiLU(inplace=True),
        )
        self.down = nn.ModuleList(_down(topology, stage) for stage in stages[1:])
        self.encoder = nn.ModuleList(
            _encoder_stage(topology, size, stage, attention) for stage in stages
        )
        self.up = nn.ModuleList(
            Pointwise(features[s + 1], features[s]) for s in finer_stages
        )
        self.fuse = nn.ModuleList(
            _Fuse(features[s], concatenate=s >= 2) for s in finer_stages
        )
        self.decoder = nn.ModuleList(
            _convolution_block(topology, s, size.decoder_expansion[s], squeeze=0)
            for s in finer_stages
        )
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(
            nn.Conv3d(features[s], outputs, 1) for s in finer_stages
        )
        if not deep_supervision:  # DDP waits for every parameter that learns
            self.heads[1:].requires_grad_(False)
        _spread_drop_path(self.encoder, drop_path)
        _initialise(self)

    def encoder_stages(self) -> list[nn.Module]:
        """Modules of each encoder stage, finest first."""
        finest = nn.ModuleList([self.stem, self.encoder[0]])
        coarser = zip(self.down, self.encoder[1:], strict=True)
        return [finest, *map(nn.ModuleList, coarser)]

    def encode(self, x: Tensor) -> list[Tensor]:
        """Feature maps of all stages, finest first."""
        layout = torch.channels_last_3d
        x = self._run(self.stem, x.contiguous(memory_format=layout))
        x = self._run(self.encoder[0], x.contiguous(memory_format=layout))
        maps = [x]
        for down, stage in zip(self.down, self.encoder[1:], strict=True):
            x = self._run(stage, down(x))
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """Logits; see the class."""
        return self.decode(self.encode(x))

    def decode(self, maps: Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Logits from the feature maps that `encode` gave."""
        x = maps[-1]
        outputs: list[Tensor] = []
        for scale in range(len(maps) - 2, -1, -1):
            skip = maps[scale]
            x = F.interpolate(self.up[scale](x), size=skip.shape[2:], mode="trilinear")
            fused = self.fuse[scale](x, skip)
            x = self._run(self.decoder[scale], fused)
            if scale == 0 or (self.training and self.deep_supervision):
                outputs.append(self.heads[scale](self.dropout(x)))
        outputs.reverse()
        return outputs if self.training and self.deep_supervision else outputs[0]


class _Fuse(nn.Module):
    """Joins the decoder's map and the skip: a sum where voxels are many, concatenation
    and a projection below.
    """

    def __init__(self, channels: int, *, concatenate: bool) -> None:
        super().__init__()
        self.project = Pointwise(2 * channels, channels) if concatenate else None

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        if self.project is None:
            return x + skip
        out: Tensor = self.project(torch.cat([x, skip], dim=1))
        return out


def _require_attention(kind: str) -> None:
    kinds = get_args(AttentionKind)
    if kind not in kinds:
        raise RecipeError(
            f"attention '{kind}' does not exist; choose one of {', '.join(kinds)}"
        )


def _down(topology: Topology, stage: int) -> nn.Sequential:
    before = topology.features[stage - 1]
    kernel = topology.kernels[stage - 1]
    return nn.Sequential(
        DepthwiseConv3d(before, kernel, topology.strides[stage]),
        InstanceNorm(before),
        Pointwise(before, topology.features[stage]),
    )


def _convolution_block(
    topology: Topology, stage: int, expansion: int, *, squeeze: float = 0.25
) -> nn.Module:
    width = topology.features[stage]
    kernel = topology.kernels[stage]
    if stage == 0:
        return DepthwiseSeparableConv3D(width, width, kernel)
    if stage == 1:
        return MBConvBlock(width, kernel, expansion=expansion, order="depthwise-first")
    return MBConvBlock(width, kernel, expansion=expansion, squeeze=squeeze)


def _encoder_stage(
    topology: Topology, size: HybridSize, stage: int, attention: str
) -> HybridEncoderBlock:
    width = topology.features[stage]
    blocks = [
        _convolution_block(topology, stage, size.expansion[stage])
        for _ in range(topology.encoder_blocks[stage])
    ]
    transformers = _attention_blocks(size, stage, width, attention)
    gate = ShuffleAttention3D(width) if stage else nn.Identity()
    return HybridEncoderBlock(blocks, transformers, gate)


def _attention_blocks(
    size: HybridSize, stage: int, width: int, kind: str
) -> list[nn.Module]:
    if kind == "none" or stage < EIGHTH:
        return []
    if stage == SIXTEENTH:
        return [TransformerBlock3D(width, "global") for _ in range(size.sixteenth)]
    if kind == "global":
        return [TransformerBlock3D(width, "global")]
    if kind == "swin":
        return [SwinTransformerBlock3D(width) for _ in range(size.eighth // 2)]
    return [_mixed_block(width, kind, index) for index in range(size.eighth)]


def _mixed_block(width: int, kind: str, index: int) -> nn.Module:
    """Windows, and in turn with them what looks further: dilated grids, or points that
    the image chooses.
    """
    if index % 2 == 0:
        return TransformerBlock3D(width, "window")
    if kind == "deformable":
        return DeformableAttention3D(width)
    return TransformerBlock3D(width, "grid")


def _spread_drop_path(encoder: nn.Module, highest: float) -> None:
    """Stochastic depth that grows linearly along the encoder."""
    paths = [module for module in encoder.modules() if isinstance(module, DropPath)]
    for index, path in enumerate(paths):
        path.rate = highest * (index + 1) / len(paths)


def _initialise(network: HybridUNet) -> None:
    """He-normal for convolutions and pointwise layers, truncated normal of 0.02 in
    transformers (Touvron et al. 2021).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv3d | Pointwise):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in network.modules():
        if isinstance(block, ATTENTION_BLOCKS):
            _initialise_transformer(block)


ATTENTION_BLOCKS = (TransformerBlock3D, DeformableAttention3D, MultiHeadSelfAttention3D)


def _initialise_transformer(block: nn.Module) -> None:
    for module in block.modules():
        if isinstance(module, nn.Linear) and not isinstance(module, Pointwise):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if isinstance(block, DeformableAttention3D):
        block.reset_offsets()


def hybrid_unet(
    topology: Topology,
    *,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
    size: str,
    attention: str = "default",
    drop_path: float | None = None,
    dropout: float = 0.0,
) -> HybridUNet:
    """Convolutions and attention in one of `HYBRID_SIZES`; `attention` is one of
    `AttentionKind`; drop_path: None is what the size sets.
    """
    chosen = HYBRID_SIZES[size]
    return HybridUNet(
        topology,
        chosen,
        channels=channels,
        outputs=outputs,
        deep_supervision=deep_supervision,
        attention=attention,
        drop_path=chosen.drop_path if drop_path is None else drop_path,
        dropout=dropout,
    )
