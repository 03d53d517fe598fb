"""Noise, blur, brightness, contrast, low resolution and gamma on a whole batch: drawn a
sample at a time, then applied.

Order, probabilities and ranges follow nnU-Net; each change touches only the samples
that it was drawn for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.config.options import Augmentation
from trivox.volumes.resampling import apply_along, blur_matrix, low_resolution_matrix
from trivox.volumes.volume import Array


@dataclass(frozen=True, eq=False)
class IntensityChange:
    """What happens to one sample; arrays have one entry a channel, and neutral values
    mean "leave it".
    """

    noise_sigma: float
    """Of every channel but the masks."""
    noise_seed: int
    blur_sigma: Array
    """`(c, 3)` voxels; 0 leaves a channel alone."""
    brightness: Array
    contrast: Array
    zoom: Array
    gamma_inverted: Array
    gamma: Array
    mirror: tuple[bool, bool, bool]
    dropped: int | None = None
    """Channel that is set to zero."""


def draw_intensity(
    rng: np.random.Generator, settings: Augmentation, channels: int
) -> IntensityChange:
    """Draw all intensity changes and mirrored axes of one sample with so many channels,
    masks not counted.
    """
    s = settings
    blurred, coarsened = rng.random((2, channels)) < s.per_channel
    sigma = rng.uniform(*s.blur_sigma, (channels, 3))
    blurred = blurred & (rng.random() < s.blur)
    coarsened = coarsened & (rng.random() < s.low_resolution)
    zoom = rng.uniform(*s.low_resolution_zoom, channels)
    flips = rng.random(3) < s.mirror
    z, y, x = (
        bool(flip and axis in s.mirror_axes)
        for flip, axis in zip(flips, "zyx", strict=True)
    )
    return IntensityChange(
        noise_sigma=rng.uniform(*s.noise_sigma) * (rng.random() < s.noise),
        noise_seed=int(rng.integers(2**62)),
        blur_sigma=sigma * blurred[:, None],
        brightness=_factors(rng, s.brightness, s.brightness_range, channels),
        contrast=_factors(rng, s.contrast, s.contrast_range, channels),
        zoom=np.where(coarsened, zoom, 1),
        gamma_inverted=_factors(rng, s.gamma_inverted, s.gamma_range, channels),
        gamma=_factors(rng, s.gamma, s.gamma_range, channels),
        mirror=(z, y, x),
        dropped=_dropped(rng, s, channels),
    )


def _dropped(
    rng: np.random.Generator, settings: Augmentation, channels: int
) -> int | None:
    """Never the only channel."""
    if channels < 2 or not settings.drop_channel:
        return None
    if rng.random() >= settings.drop_channel:
        return None
    return int(rng.integers(channels))


def _factors(
    rng: np.random.Generator,
    probability: float,
    span: tuple[float, float],
    channels: int,
) -> Array:
    """A factor a channel: below or above 1 with equal chance (nnU-Net's coin), 1 where
    the change does not happen.
    """
    applied = rng.random() < probability
    low, high = span
    below = rng.uniform(min(low, 1), 1, channels)
    above = rng.uniform(1, max(high, 1), channels)
    factor = np.where(rng.random(channels) < 0.5, below, above)
    return factor if applied else np.ones(channels)


def apply_intensity(images: Tensor, changes: Sequence[IntensityChange]) -> Tensor:
    """Apply the changes to `(b, c, z, y, x)` in place (mirroring excepted) and return
    it.

    Channels beyond those that the changes were drawn for are masks, which only
    mirroring changes.
    """
    masks = images[:, len(changes[0].gamma) :]
    if masks.shape[1]:
        pictures = images[:, : len(changes[0].gamma)].contiguous()
        return torch.cat([apply_intensity(pictures, changes), masks], dim=1)
    _add_noise(images, changes)
    volumes = images.view(-1, *images.shape[2:])  # (b c, z, y, x): each on its own
    _blur(volumes, np.concatenate([c.blur_sigma for c in changes]))
    _brighten(volumes, np.concatenate([c.brightness for c in changes]))
    _contrast(volumes, np.concatenate([c.contrast for c in changes]))
    _coarsen(volumes, np.concatenate([c.zoom for c in changes]))
    _gamma(volumes, np.concatenate([c.gamma_inverted for c in changes]), sign=-1)
    _gamma(volumes, np.concatenate([c.gamma for c in changes]), sign=1)
    for image, change in zip(images, changes, strict=True):
        if change.dropped is not None:
            image[change.dropped] = 0
    return images


def mirror(
    images: Tensor, labels: Tensor, changes: Sequence[IntensityChange]
) -> tuple[Tensor, Tensor]:
    """Flip each sample of `(b, c, z, y, x)` and `(b, z, y, x)` along its drawn axes, in
    place.
    """
    for image, label, change in zip(images, labels, changes, strict=True):
        axes = [axis for axis, flip in enumerate(change.mirror) if flip]
        if axes:
            image.copy_(image.flip([axis + 1 for axis in axes]))
            label.copy_(label.flip(axes))
    return images, labels


def _add_noise(images: Tensor, changes: Sequence[IntensityChange]) -> None:
    for image, change in zip(images, changes, strict=True):
        if change.noise_sigma > 0:
            device = image.device
            generator = torch.Generator(device).manual_seed(change.noise_seed)
            noise = torch.randn(image.shape, generator=generator, device=device)
            image.add_(noise, alpha=change.noise_sigma)


def _chosen(drawn: Array, neutral: float) -> list[int]:
    return [int(index) for index in np.flatnonzero(drawn != neutral)]


def _blur(volumes: Tensor, sigmas: Array) -> None:
    for index in _chosen(sigmas[:, 0], 0):
        drawn = torch.from_numpy(sigmas[index]).float()
        axes = zip(volumes.shape[1:], drawn, strict=True)
        _apply(volumes, index, [blur_matrix(size, sigma) for size, sigma in axes])


def _coarsen(volumes: Tensor, zooms: Array) -> None:
    for index in _chosen(zooms, 1):
        operators: list[Tensor] = []
        for size in volumes.shape[1:]:
            coarse = max(1, round(size * float(zooms[index])))
            operators.append(low_resolution_matrix(size, coarse))
        _apply(volumes, index, operators)


def _apply(volumes: Tensor, index: int, operators: Sequence[Tensor]) -> None:
    """One banded product an axis: blur and low resolution are local, most of their
    matrices is zero.
    """
    volume = volumes[index : index + 1]
    for axis, operator in enumerate(operators):
        volume = apply_along(volume, operator, axis)
    volumes[index] = volume[0]


def _brighten(volumes: Tensor, factors: Array) -> None:
    for index in _chosen(factors, 1):
        volumes[index].mul_(float(factors[index]))


def _contrast(volumes: Tensor, factors: Array) -> None:
    for index in _chosen(factors, 1):
        volume = volumes[index]
        factor = float(factors[index])
        low, high = torch.aminmax(volume)
        mean = volume.mean()
        volume.mul_(factor).add_(mean * (1 - factor)).clamp_(low, high)


def _gamma(volumes: Tensor, exponents: Array, *, sign: int) -> None:
    """Raise the range-normalised volume (negated if `sign` is -1) to a power, keeping
    mean and standard deviation.
    """
    for index in _chosen(exponents, 1):
        volume = volumes[index].mul_(sign)
        std, mean = _std_mean(volume)
        low, high = torch.aminmax(volume)
        span = (high - low).clamp(min=1e-7)
        volume.sub_(low).div_(span)
        # a power as exp(e log x), which is vectorised on CPUs; 0 stays 0
        volume.log_().mul_(float(exponents[index])).exp_()
        volume.mul_(span).add_(low)
        new_std, new_mean = _std_mean(volume)
        volume.sub_(new_mean).mul_(std / new_std.clamp(min=1e-8))
        volume.add_(mean).mul_(sign)


def _std_mean(volume: Tensor) -> tuple[Tensor, Tensor]:
    """As `torch.std_mean`, which takes twenty times as long on one core."""
    mean = volume.mean()
    length = torch.linalg.vector_norm(volume - mean)
    return length / math.sqrt(max(volume.numel() - 1, 1)), mean
