"""The 3-D U-Net that turns maps of what the views show into maps of the volume, at one
or several scales.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from trivox.networks.efficient import Pointwise
from trivox.networks.layers import Recomputing
from trivox.networks.xray2ct.blocks3d import DecoderBlock3D, EncoderBlock3D
from trivox.networks.xray2ct.sizes import ReconstructionSize


class VolumeUNet(Recomputing):
    """Encoder and decoder with gated skips; level 0 is the coarsest, and each level has
    twice the voxels of the one before.

    inputs: channels of the maps that the finest levels are given, finest first. What is
    called below `finest` runs without the levels above: they add to a level's own map,
    so a level works with or without them.
    """

    def __init__(
        self, size: ReconstructionSize, levels: int, inputs: Sequence[int]
    ) -> None:
        super().__init__()
        widths = size.widths
        self.levels = levels
        entries = {levels - 1 - i: channels for i, channels in enumerate(inputs)}
        self.entry = nn.ModuleDict(
            {str(k): Pointwise(c, widths[k]) for k, c in entries.items()}
        )
        self.down = nn.ModuleList(
            nn.Conv3d(widths[k + 1], widths[k], 2, stride=2) for k in range(levels - 1)
        )
        self.encoder = nn.ModuleList(_encoder(size, k) for k in range(levels))
        self.decoder = nn.ModuleList(_decoder(size, k) for k in range(1, levels))

    def forward(
        self, given: Mapping[int, Tensor], finest: int, fade: float = 1.0
    ) -> dict[int, Tensor]:
        """Maps of all levels from `finest` on, by level; given: what levels look up.

        fade: weight of the finest level in the next one, from 0 (as if it were not
        there) to 1.
        """
        skips: dict[int, Tensor] = {}
        for level in range(finest, -1, -1):
            parts: list[Tensor] = []
            if str(level) in self.entry:
                parts.append(self.entry[str(level)](given[level]))
            if level < finest:
                finer: Tensor = self.down[level](skips[level + 1])
                fading = fade < 1 and level == finest - 1
                parts.append(finer * fade if fading else finer)
            joined = sum(parts[1:], start=parts[0])
            skips[level] = self._run(self.encoder[level], joined)
        x = skips[0]
        maps = {0: x}
        for level in range(1, finest + 1):
            x = self._run(self.decoder[level - 1], x, skips[level])
            maps[level] = x
        return maps


def _encoder(size: ReconstructionSize, level: int) -> EncoderBlock3D:
    window = size.window if level in size.attention else None
    return EncoderBlock3D(
        size.widths[level],
        layers=size.layers[level],
        growth=size.growth[level],
        window=window,
    )


def _decoder(size: ReconstructionSize, level: int) -> DecoderBlock3D:
    window = size.window if level in size.attention else None
    return DecoderBlock3D(
        size.widths[level - 1],
        size.widths[level],
        layers=size.layers[level],
        growth=size.growth[level],
        window=window,
    )
