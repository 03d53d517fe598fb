"""Noise, blur, brightness, contrast, low resolution and gamma on a whole batch: drawn a
sample at a time, then applied.

Order, probabilities and ranges follow nnU-Net; each change touches only the samples
that it was drawn for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.config.options import Augmentation
from trivox.volumes.blurring import blur_matrix, low_resolution_matrix
from trivox.volumes.resampling import apply_along
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


@dataclass(frozen=True, eq=False)
class Part:
    """A change of some of the volumes `(n, z, y, x)` of a batch.

    change: takes volumes `(r, z, y, x)`, which it changes in place, and `numbers`, one
    a volume each; rows: which volumes, ascending; scattered: the same as a tensor,
    where others lie between them.
    """

    change: Callable[..., None]
    rows: list[int]
    numbers: tuple[Tensor, ...]
    scattered: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """What has to be on the device of the volumes."""
        return (*self.numbers, *(() if self.scattered is None else (self.scattered,)))

    def with_tensors(self, tensors: Sequence[Tensor]) -> "Part":
        """The same with its tensors on another device."""
        count = len(self.numbers)
        scattered = None if self.scattered is None else tensors[count]
        return Part(self.change, self.rows, tuple(tensors[:count]), scattered)

    def apply(self, volumes: Tensor) -> None:
        """Change the volumes in place."""
        if self.scattered is None:
            self.change(volumes[self.rows[0] : self.rows[-1] + 1], *self.numbers)
            return
        chosen = volumes.index_select(0, self.scattered)
        self.change(chosen, *self.numbers)
        volumes.index_copy_(0, self.scattered, chosen)


def apply_intensity(
    images: Tensor,
    changes: Sequence[IntensityChange],
    parts: Sequence[Part] | None = None,
) -> Tensor:
    """Apply the changes to `(b, c, z, y, x)` in place (mirroring excepted) and return
    it.

    Channels beyond those that the changes were drawn for are masks, which only
    mirroring changes. parts: what `intensity_parts` made of the changes, if it did.
    """
    if parts is None:
        parts = intensity_parts(changes, images.shape[1:], apart=True)
    _add_noise(images, changes)
    volumes = images.view(-1, *images.shape[2:])  # (b c, z, y, x): each on its own
    for part in parts:
        part.apply(volumes)
    for image, change in zip(images, changes, strict=True):
        if change.dropped is not None:
            image[change.dropped].zero_()
    return images


def intensity_parts(
    changes: Sequence[IntensityChange], shape: Sequence[int], *, apart: bool
) -> list[Part]:
    """What is to be done, in this order, to samples of `shape` `(c, z, y, x)`; noise and
    dropped channels are not among it.

    apart: one volume after the other, so that it stays in a CPU's cache; otherwise all
    together, which takes a GPU few launches.
    """
    channels, *size = shape
    pictures = len(changes[0].gamma)
    places = [
        sample * channels + channel
        for sample in range(len(changes))
        for channel in range(pictures)
    ]
    blurs = np.concatenate([c.blur_sigma for c in changes])
    first, second = _gammas(changes)
    drawn = (
        (_transform, blurs, 0, lambda sigmas: _blurs(sigmas, size)),
        (_brighten, _together(changes, "brightness"), 1, _factor),
        (_contrast, _together(changes, "contrast"), 1, _factor_and_rest),
        (_transform, _together(changes, "zoom"), 1, lambda z: _coarsenings(z, size)),
        (_gamma, first, 1, _exponent_and_sign),
        (_gamma, second, 1, _exponent_and_sign),
    )
    parts: list[Part] = []
    for change, values, neutral, numbers_of in drawn:
        chosen = np.flatnonzero(values[:, 0] != neutral).tolist()
        for group in _groups(chosen, apart=apart):
            rows = [places[index] for index in group]
            parts.append(_part(change, rows, numbers_of(values[group])))
    return parts


def _together(changes: Sequence[IntensityChange], name: str) -> Array:
    """What is drawn for each volume, `(n, 1)`."""
    drawn: list[Array] = [getattr(change, name) for change in changes]
    return np.concatenate(drawn)[:, None]


def _gammas(changes: Sequence[IntensityChange]) -> tuple[Array, Array]:
    """Exponent and sign `(n, 2)` of each volume's first gamma, the inverted one if there
    is one, and of the second, of those that have both.
    """
    inverted = _together(changes, "gamma_inverted")
    upright = _together(changes, "gamma")
    turned = inverted != 1
    first = np.where(turned, inverted, upright)
    second = np.where(turned, upright, 1)
    signs = np.where(turned, -1.0, 1.0)
    return np.hstack([first, signs]), np.hstack([second, np.ones_like(second)])


def _groups(chosen: list[int], *, apart: bool) -> list[list[int]]:
    if apart:
        return [[index] for index in chosen]
    return [chosen] if chosen else []


def _part(
    change: Callable[..., None], rows: list[int], numbers: tuple[Tensor, ...]
) -> Part:
    in_a_row = rows[-1] - rows[0] + 1 == len(rows)
    return Part(change, rows, numbers, None if in_a_row else torch.tensor(rows))


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
            pictures = image[: len(change.gamma)]
            device = image.device
            generator = torch.Generator(device).manual_seed(change.noise_seed)
            noise = torch.randn(pictures.shape, generator=generator, device=device)
            pictures.add_(noise, alpha=change.noise_sigma)


def _column(values: Array) -> Tensor:
    """A number a volume, `(r, 1, 1, 1)`."""
    return torch.from_numpy(values).float()[:, None, None, None]


def _factor(factors: Array) -> tuple[Tensor, ...]:
    return (_column(factors[:, 0]),)


def _factor_and_rest(factors: Array) -> tuple[Tensor, ...]:
    return _column(factors[:, 0]), _column(1 - factors[:, 0])


def _exponent_and_sign(values: Array) -> tuple[Tensor, ...]:
    exponents = _column(values[:, 0])
    if (values[:, 1] > 0).all():
        return (exponents,)
    return exponents, _column(values[:, 1])


def _blurs(sigmas: Array, size: Sequence[int]) -> tuple[Tensor, ...]:
    """A matrix `(r, n, n)` an axis."""
    drawn = torch.from_numpy(sigmas).float()
    return tuple(
        torch.stack([blur_matrix(voxels, sigma) for sigma in along])
        for voxels, along in zip(size, drawn.T, strict=True)
    )


def _coarsenings(zooms: Array, size: Sequence[int]) -> tuple[Tensor, ...]:
    matrices: list[Tensor] = []
    for voxels in size:
        coarse = [max(1, round(voxels * float(zoom))) for zoom in zooms[:, 0]]
        along = [low_resolution_matrix(voxels, points) for points in coarse]
        matrices.append(torch.stack(along))
    return tuple(matrices)


def _transform(volumes: Tensor, *matrices: Tensor) -> None:
    """One product an axis: blur and low resolution."""
    result = volumes
    for axis, along in enumerate(matrices):
        result = _apply_each(result, along, axis)
    volumes.copy_(result)


def _apply_each(volumes: Tensor, matrices: Tensor, axis: int) -> Tensor:
    """Multiply axis `axis` of each of `(r, z, y, x)` by a matrix of its own, `(r, n, n)`.

    Most of them is zero, which a CPU leaves out; on a GPU every band would be a launch.
    """
    if not volumes.is_cuda:
        pairs = zip(volumes.split(1), matrices, strict=True)
        products = [apply_along(volume, matrix, axis) for volume, matrix in pairs]
        return torch.cat(products) if len(products) > 1 else products[0]
    if axis == 0:
        planes = volumes.flatten(2)
        return torch.bmm(matrices, planes).view_as(volumes)
    if axis == 1:
        return matrices[:, None] @ volumes
    lines = volumes.flatten(1, 2)
    return torch.bmm(lines, matrices.mT).view_as(volumes)


def _brighten(volumes: Tensor, factors: Tensor) -> None:
    volumes.mul_(factors)


def _contrast(volumes: Tensor, factors: Tensor, rest: Tensor) -> None:
    low, high = _range(volumes)
    mean = volumes.mean((1, 2, 3), keepdim=True)
    volumes.mul_(factors).add_(mean * rest).clamp_(low, high)


def _gamma(volumes: Tensor, exponents: Tensor, signs: Tensor | None = None) -> None:
    """Raise range-normalised volumes (negated where the sign is -1) to a power, keeping
    mean and standard deviation.
    """
    if signs is not None:
        volumes.mul_(signs)
    low, high = _range(volumes)
    span = (high - low).clamp_(min=1e-7)
    if volumes.is_cuda:
        volumes.copy_(_bent(volumes, low, span, exponents))
    else:
        _bend(volumes, low, span, exponents)
    if signs is not None:
        volumes.mul_(signs)


def _bent(volumes: Tensor, low: Tensor, span: Tensor, exponents: Tensor) -> Tensor:
    """Volumes to a power, in few launches."""
    std, mean = torch.std_mean(volumes, (1, 2, 3), correction=0)
    powers = volumes.sub(low).div_(span).pow_(exponents)
    # its sums do not cancel, as cuDNN's may, which `F.batch_norm` would take
    normed, _, _ = torch.native_batch_norm(
        powers[None], std, mean, None, None, training=True, momentum=0, eps=1e-14
    )
    return normed[0]


def _bend(volumes: Tensor, low: Tensor, span: Tensor, exponents: Tensor) -> None:
    """The same in place, by what is vectorised on CPUs."""
    std, mean = _std_mean(volumes)
    volumes.sub_(low).div_(span)
    # a power as exp(e log x); 0 stays 0
    volumes.log_().mul_(exponents).exp_()
    volumes.mul_(span).add_(low)
    new_std, new_mean = _std_mean(volumes)
    volumes.sub_(new_mean).mul_(std / new_std.clamp_(min=1e-8)).add_(mean)


def _range(volumes: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each volume."""
    if len(volumes) == 1:  # without an axis the search is vectorised on CPUs
        low, high = torch.aminmax(volumes)
        return low, high
    low, high = torch.aminmax(volumes.flatten(1), dim=1)
    return low[:, None, None, None], high[:, None, None, None]


def _std_mean(volumes: Tensor) -> tuple[Tensor, Tensor]:
    """Of each volume, as `torch.std_mean`, which takes a CPU twenty times as long."""
    axes = (1, 2, 3)
    mean = volumes.mean(axes, keepdim=True)
    length = torch.linalg.vector_norm(volumes - mean, dim=axes, keepdim=True)
    voxels = math.prod(volumes.shape[1:])
    return length / math.sqrt(max(voxels - 1, 1)), mean
