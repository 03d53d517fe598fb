"""Difference of volumes as a small 3-D encoder sees it, which the project trains itself
on thorax phantoms.

The encoder learns to name the tissue of every voxel (`scripts/train_perceptual.py`,
which also prints how well it does on phantoms that it was not trained on); its weights
come with the package and stay as they are. What is compared is the activity of its
channels at full, half and quarter resolution, each channel divided by its spread over
the phantoms (the idea: Johnson et al. 2016, Zhang et al. 2018; no network trained on
photographs is involved).
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from trivox.learning.losses.targets import absolute_difference, full_precision
from trivox.uploads import constant

WINDOW = (-1024.0, 1476.0)
"""HU that the encoder sees as 0 to 1."""
WIDTHS = (8, 16, 32)
ENCODER_FILE = Path(__file__).with_name("perceptual.safetensors")


class TissueEncoder(nn.Module):
    """Channels at full, half and quarter resolution; plain convolutions, so that any
    size from 4 voxels on fits.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        first, *others = widths
        self.stem = nn.Conv3d(1, first, 3, padding=1)
        self.halving = nn.ModuleList(
            nn.Conv3d(coarse, fine, 3, stride=2, padding=1)
            for coarse, fine in zip(widths, others, strict=False)
        )
        self.mixing = nn.ModuleList(
            nn.Conv3d(width, width, 3, padding=1) for width in others
        )
        for index, width in enumerate(widths):
            self.register_buffer(f"spread{index}", torch.ones(width))

    def forward(self, volumes: Tensor) -> list[Tensor]:
        """Channels of `(b, 1, z, y, x)` in 0..1 of `WINDOW`, finest first."""
        scales = [F.silu(self.stem(volumes))]
        for halving, mixing in zip(self.halving, self.mixing, strict=True):
            scales.append(F.silu(mixing(F.silu(halving(scales[-1])))))
        return scales

    def normalised(self, volumes: Tensor) -> list[Tensor]:
        """Channels divided by their spread over the phantoms that the encoder was
        trained on.
        """
        return [
            channels / spread.view(-1, 1, 1, 1)
            for channels, spread in zip(self(volumes), self.spreads(), strict=True)
        ]

    def spreads(self) -> list[Tensor]:
        """Of the channels of each scale over the phantoms, `(c,)`."""
        scales = range(len(self.mixing) + 1)
        return [self.get_buffer(f"spread{index}") for index in scales]


class PerceptualDifference(nn.Module):
    """Mean absolute difference of the encoder's channels, averaged over its three
    scales.

    window: HU that the compared volumes hold as 0 to 1. The encoder is frozen;
    gradients pass through it.
    """

    def __init__(
        self, *, window: tuple[float, float], file: Path = ENCODER_FILE
    ) -> None:
        super().__init__()
        self.encoder = TissueEncoder()
        self.encoder.load_state_dict(load_file(file))
        self.encoder.requires_grad_(False)
        self.shares = self._shares()
        low, high = window
        width = WINDOW[1] - WINDOW[0]
        self.gain = (high - low) / width
        self.shift = (low - WINDOW[0]) / width

    def _shares(self) -> list[list[float]]:
        """Of every channel of each scale in the mean over scales of means over channels
        that are divided by their spread.
        """
        spreads = self.encoder.spreads()
        shares = [1 / spread / len(spread) / len(spreads) for spread in spreads]
        return [share.tolist() for share in shares]

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """A scalar of `(b, 1, z, y, x)` and `(b, 1, z, y, x)` in fp32; the mean of what
        the samples give alone.
        """
        with torch.autocast(prediction.device.type, enabled=False):
            channels = self._channels(prediction)
            with torch.no_grad():
                wanted = self._channels(target)
            differences = [
                absolute_difference(here, there, reduction="none")
                for here, there in zip(channels, wanted, strict=True)
            ]
            return self._mean(differences)

    def _mean(self, differences: Sequence[Tensor]) -> Tensor:
        """Over the scales, of all samples together."""
        weights: list[float] = []
        for scale, shares in zip(differences, self.shares, strict=True):
            values = scale.numel() // len(shares)
            weights += [share / values for share in shares]
        sums = torch.cat([scale.sum((0, 2, 3, 4)) for scale in differences])
        return torch.dot(sums, constant(tuple(weights), sums.device))

    def _channels(self, volumes: Tensor) -> list[Tensor]:
        shift = constant((self.shift,), volumes.device)
        seen = torch.add(shift, full_precision(volumes), alpha=self.gain)
        channels: list[Tensor] = self.encoder(seen)
        return channels
