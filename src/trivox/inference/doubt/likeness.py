"""Whether an image is like those that a model was trained on: its spacing, its size,
and what its intensities and their edges look like on the network's grid.

A network answers whatever it is given, and can be certain about it; this looks at the
image alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from trivox.schema import Frozen
from trivox.volumes.volume import Array, Spacing

LEVELS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
"""Quantiles of the intensities that are compared."""
EDGE_LEVELS = (0.5, 0.9, 0.99)
"""Quantiles of the differences between neighbouring voxels. Their share of the channel's
range is compared, and its logarithm: the first tells noise, the second blur.
"""
FEATURES = len(LEVELS) + 2 * len(EDGE_LEVELS)
"""Of a channel."""
VOXELS = 200_000
"""Of an image that are looked at, evenly taken."""
FEWEST = 8
"""Training cases below which nothing is known about how much images differ."""
NOISE = 0.01
"""Variance of standardised features that is taken for granted along every direction."""
FLOOR = 0.02
"""Least spread of a feature, and least edge, as a share of the range of a channel."""
MARGIN = 1.5
"""How many times beyond what is usual among training images an image has to be."""
RULE = (
    f"unlike: a spacing or size more than {MARGIN:g} times beyond those of the "
    "training images, or a channel whose intensities and edges (quantiles on the "
    f"network's grid) lie farther than {MARGIN:g} x (upper quartile + 3 interquartile "
    "ranges of the distance of a training image to the others; Mahalanobis)"
)
AXES = "zyx"


@dataclass(frozen=True, eq=False)
class Look:
    """What is seen of an image without any network.

    spacing: mm of the source; size: mm; both in the order of the network's axes;
    features: of each channel, `(c, f)`.
    """

    spacing: Spacing
    size: Spacing
    features: Array


class Range(Frozen):
    """Of the training images along an axis, mm."""

    low: float = Field(gt=0)
    high: float = Field(gt=0)

    def complaint(self, what: str, value: float) -> str | None:
        """What to say of an image that is more than `MARGIN` times beyond it."""
        if self.low / MARGIN <= value <= self.high * MARGIN:
            return None
        return (
            f"{what} of {value:.3g} mm, training images had {self.low:.3g} to "
            f"{self.high:.3g} mm"
        )


class ChannelLikeness(Frozen):
    """What a channel of the training images looked like.

    means, spreads: of the features; precision: of the standardised features, the
    inverse of their covariance; fence: distance to the others that few training images
    have, the upper quartile + 3 interquartile ranges (Tukey 1977).
    """

    channel: str
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    precision: tuple[tuple[float, ...], ...]
    fence: float = Field(ge=0)

    @classmethod
    def of(cls, channel: str, features: Array) -> "ChannelLikeness":
        """From the features `(case, feature)` of the training images."""
        mean, spread, precision = _fitted(features)
        distances = [_left_out(features, index) for index in range(len(features))]
        low, high = np.percentile(distances, [25, 75])
        return cls.model_validate(
            {
                "channel": channel,
                "means": mean.tolist(),
                "spreads": spread.tolist(),
                "precision": precision.tolist(),
                "fence": float(high + 3 * (high - low)),
            }
        )

    def complaint(self, features: Array) -> str | None:
        """What to say of a channel that is unlike; nothing of an absent one."""
        fitted = (np.array(part) for part in (self.means, self.spreads, self.precision))
        distance = _distance(features, *fitted)
        if not distance > MARGIN * self.fence:
            return None
        return (
            f"intensities of {self.channel} (distance {distance:.3g}, among training "
            f"images hardly ever above {self.fence:.3g})"
        )


class Likeness(Frozen):
    """What the training images of a model looked like, to know others by.

    axes: of the patient (z, y, x) that the network's run along; spacing, size: of the
    source along these.
    """

    axes: tuple[Literal[0, 1, 2], Literal[0, 1, 2], Literal[0, 1, 2]]
    cases: int = Field(ge=FEWEST)
    spacing: tuple[Range, Range, Range]
    size: tuple[Range, Range, Range]
    channels: tuple[ChannelLikeness, ...]
    rule: str = RULE

    def complaints(self, look: Look) -> list[str]:
        """How an image is unlike the training images; empty if it is not."""
        said: list[str | None] = []
        for what, ranges, values in (
            ("a spacing", self.spacing, look.spacing),
            ("a size", self.size, look.size),
        ):
            for axis, among, value in zip(self.axes, ranges, values, strict=True):
                said.append(among.complaint(f"{what} along {AXES[axis]}", value))
        for channel, features in zip(self.channels, look.features, strict=True):
            said.append(channel.complaint(features))
        return [sentence for sentence in said if sentence]


def look_at(
    image: Tensor, *, channels: int, source_spacing: Spacing, spacing: Spacing
) -> Look:
    """Look at an image `(c, z, y, x)` as a network gets it.

    channels: so many are of the image; source_spacing: mm of the source in the order
    of these axes; spacing: of the voxels, mm.
    """
    z, y, x = (voxels * mm for voxels, mm in zip(image.shape[1:], spacing, strict=True))
    features = [_features(channel) for channel in image[:channels]]
    return Look(source_spacing, (z, y, x), np.stack(features))


def learn_likeness(
    looks: Sequence[Look], *, channels: Sequence[str], axes: Sequence[int]
) -> Likeness | None:
    """From the training images; None for fewer than `FEWEST`."""
    if len(looks) < FEWEST:
        return None
    seen = [np.nan_to_num(look.features) for look in looks]
    features = np.stack(seen)  # (case, channel, feature)
    each = zip(channels, features.swapaxes(0, 1), strict=True)
    return Likeness.model_validate(
        {
            "axes": tuple(axes),
            "cases": len(looks),
            "spacing": _ranges(look.spacing for look in looks),
            "size": _ranges(look.size for look in looks),
            "channels": [ChannelLikeness.of(name, table) for name, table in each],
        }
    )


def _features(channel: Tensor) -> Array:
    """Quantiles of the values of a channel `(z, y, x)` and of its edges; NaN for a
    channel that is absent.
    """
    if not channel.any():
        return np.full(FEATURES, np.nan)
    values = _quantiles(channel.flatten(), LEVELS)
    axes = [axis for axis in range(3) if channel.shape[axis] > 1]
    steps = [channel.diff(dim=axis).abs().flatten() for axis in axes]
    edges = _quantiles(torch.cat([*steps, torch.zeros(1)]), EDGE_LEVELS)
    contrast = max(float(values[-1] - values[0]), 1e-6)
    shares = edges / contrast
    return np.concatenate([values, shares, np.log(shares + FLOOR)])


def _quantiles(values: Tensor, levels: Sequence[float]) -> Array:
    step = max(1, values.numel() // VOXELS)
    chosen = values[::step].float().cpu()
    wanted = torch.tensor(levels)
    return np.asarray(torch.quantile(chosen, wanted).double().numpy())


def _fitted(features: Array) -> tuple[Array, Array, Array]:
    """Mean, spread and precision of features `(case, feature)`; no spread is below a
    share of the range of the values. Covariance: Ledoit and Wolf 2004.
    """
    from sklearn.covariance import ledoit_wolf  # takes a second to import

    mean = features.mean(axis=0)
    values = mean[: len(LEVELS)]
    least = np.full(len(mean), FLOOR)
    least[: len(LEVELS)] *= max(float(values[-1] - values[0]), 1e-6)
    spread = np.maximum(features.std(axis=0, ddof=1), least)
    standardised = (features - mean) / spread
    covariance, _ = ledoit_wolf(standardised, assume_centered=True)
    floored = covariance + NOISE * np.eye(len(covariance))
    return mean, spread, np.linalg.inv(floored)


def _left_out(features: Array, index: int) -> float:
    """Distance of a case to the others."""
    others = np.delete(features, index, axis=0)
    return _distance(features[index], *_fitted(others))


def _distance(features: Array, mean: Array, spread: Array, precision: Array) -> float:
    """Mahalanobis distance over the square root of the number of features; NaN for
    features that are.
    """
    standardised = (features - mean) / spread
    return float(np.sqrt(standardised @ precision @ standardised / len(mean)))


def _ranges(sizes: Iterable[Spacing]) -> list[dict[str, float]]:
    table = np.array(list(sizes))
    low = table.min(axis=0)
    high = table.max(axis=0)
    return [{"low": a, "high": b} for a, b in zip(low, high, strict=True)]
