"""The U-Net of a plan's topology: plain (Isensee et al. 2021) or with a residual encoder
(Isensee et al. 2024).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trivox.networks.layers import (
    ConvBlock,
    Recomputing,
    ResidualBlock,
    UpSample,
    initialise,
    require_norm,
)
from trivox.planning.topology import Topology


class UNet(Recomputing):
    """Encoder, decoder and a 1x1x1 head at every decoder resolution.

    In training with `deep_supervision` the forward pass returns the logits of all heads
    at their own scale, finest first; otherwise only the finest, `(b, outputs, z, y,
    x)`. Each input axis must be a multiple of `topology.divisor`.
    With `gradient_checkpointing` a stage keeps its input alone and computes the rest
    again in the backward pass.

    dropout: chance that a channel of the features going up is zeroed, at the bottleneck
    and every decoder scale but the finest: dropping deep features tells most about what
    the network does not know and costs least accuracy (Kendall et al. 2017, Bayesian
    SegNet); whole channels, since neighbouring voxels carry the same feature (Tompson
    et al. 2015). norm: one of `NORMS`, after every convolution.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        channels: int,
        outputs: int,
        deep_supervision: bool = True,
        dropout: float = 0.0,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        require_norm(norm)
        self.topology = topology
        self.deep_supervision = deep_supervision
        self.dropout = nn.Dropout3d(dropout)
        features = topology.features
        finer_stages = range(topology.stages - 1)
        self.stem: nn.Module = nn.Identity()
        width = channels
        if topology.residual:
            self.stem = ConvBlock(channels, features[0], topology.kernels[0], norm=norm)
            width = features[0]
        widths = [width, *features]
        self.encoder = nn.ModuleList(
            _encoder_stage(topology, stage, widths[stage], norm)
            for stage in range(topology.stages)
        )
        self.up = nn.ModuleList(
            UpSample(features[s + 1], features[s], topology.strides[s + 1])
            for s in finer_stages
        )
        self.decoder = nn.ModuleList(
            _decoder_stage(topology, s, norm) for s in finer_stages
        )
        self.heads = nn.ModuleList(
            nn.Conv3d(features[s], outputs, 1) for s in finer_stages
        )
        if not deep_supervision:  # DDP waits for every parameter that learns
            self.heads[1:].requires_grad_(False)
        initialise(self)

    def encoder_stages(self) -> list[nn.Module]:
        """The encoder's stages, finest first; the stem belongs to the first."""
        first, *others = self.encoder
        return [nn.Sequential(self.stem, first), *others]

    def encode(self, x: Tensor) -> list[Tensor]:
        """Feature maps of all stages, finest first."""
        maps = []
        x = self._run(self.stem, x)
        for stage in self.encoder:
            x = self._run(stage, x)
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
            x = self._run(self._decode, x, maps[scale], scale)
            if scale == 0 or (self.training and self.deep_supervision):
                outputs.append(self.heads[scale](x))
        outputs.reverse()
        return outputs if self.training and self.deep_supervision else outputs[0]

    def _decode(self, x: Tensor, skip: Tensor, scale: int) -> Tensor:
        upsampled = self.up[scale](self.dropout(x))
        out: Tensor = self.decoder[scale](torch.cat([upsampled, skip], dim=1))
        return out


def _encoder_stage(
    topology: Topology, stage: int, inputs: int, norm: str
) -> nn.Sequential:
    block = ResidualBlock if topology.residual else ConvBlock
    kernel = topology.kernels[stage]
    width = topology.features[stage]
    blocks = [block(inputs, width, kernel, topology.strides[stage], norm)]
    blocks += [
        block(width, width, kernel, (1, 1, 1), norm)
        for _ in range(topology.encoder_blocks[stage] - 1)
    ]
    return nn.Sequential(*blocks)


def _decoder_stage(topology: Topology, stage: int, norm: str) -> nn.Sequential:
    kernel = topology.kernels[stage]
    width = topology.features[stage]
    blocks = [ConvBlock(2 * width, width, kernel, norm=norm)]
    blocks += [
        ConvBlock(width, width, kernel, norm=norm)
        for _ in range(topology.decoder_blocks[stage] - 1)
    ]
    return nn.Sequential(*blocks)


def plain_unet(
    topology: Topology,
    *,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
    dropout: float = 0.0,
    norm: str = "instance",
) -> UNet:
    """Plain convolutional U-Net, whatever the topology says of residual blocks."""
    return UNet(
        topology.model_copy(update={"residual": False}),
        channels=channels,
        outputs=outputs,
        deep_supervision=deep_supervision,
        dropout=dropout,
        norm=norm,
    )


def residual_encoder_unet(
    topology: Topology,
    *,
    channels: int,
    outputs: int,
    deep_supervision: bool = True,
    dropout: float = 0.0,
    norm: str = "instance",
) -> UNet:
    """U-Net with a residual encoder and a light decoder, whatever the topology says of
    residual blocks.
    """
    return UNet(
        topology.model_copy(update={"residual": True}),
        channels=channels,
        outputs=outputs,
        deep_supervision=deep_supervision,
        dropout=dropout,
        norm=norm,
    )
