"""Bringing intensities to a common scale, channel by channel, before resampling.

What a scheme takes from an image (its mean, its range) is measured on the values as they
are stored; then it is applied, to all of them or to some rows at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from trivox.planning.plan import Normalisation
from trivox.volumes.volume import Array

Change = Callable[[Array, Array | None], None]
"""Brings float32 values of a channel to their scale, in place; with the mask of what
counts as inside, where that matters.
"""
AT_ONCE = 2**20
"""Values whose deviations are summed at once."""


def normalise(
    image: Array, normalisations: Sequence[Normalisation], *, mask: Array | None = None
) -> Array:
    """Normalise `(c, z, y, x)` by the plan's scheme for each channel; returns new
    float32.

    mask: what counts as inside `(z, y, x)`; None: what is not zero.
    """
    rows = NormalisedRows.of(image, normalisations, mask=mask)
    return np.asarray(rows.take(0, image.shape[1]).numpy())


@dataclass(frozen=True, eq=False)
class NormalisedRows:
    """A normalised image `(c, z, y, x)`, made some rows at a time.

    image: as it is stored; changes: of each channel; mask: what counts as inside.
    """

    image: Array
    changes: tuple[Change, ...]
    mask: Array | None

    @classmethod
    def of(
        cls,
        image: Array,
        normalisations: Sequence[Normalisation],
        *,
        mask: Array | None = None,
    ) -> "NormalisedRows":
        """The image normalised by the plan's scheme for each channel; see
        `normalise`.
        """
        if not np.can_cast(image.dtype, np.float32):
            image = image.astype(np.float32)
        if mask is None and any(how.masked for how in normalisations):
            mask = foreground_mask(image)
        changes: list[Change] = []
        for channel, how in zip(image, normalisations, strict=True):
            inside = mask if how.masked else None
            # a channel that the case lacks stays zero under every scheme
            change = _FITTED[how.scheme](channel, how, inside)
            changes.append(change if channel.any() else _unchanged)
        return cls(image, tuple(changes), mask)

    @property
    def size(self) -> tuple[int, int, int, int]:
        """Channels and voxels `(c, z, y, x)`."""
        channels, z, y, x = self.image.shape
        return channels, z, y, x

    def ordered(self, axes: tuple[int, int, int]) -> "NormalisedRows":
        """The same with its axes in another order."""
        image = self.image.transpose(0, *(axis + 1 for axis in axes))
        mask = None if self.mask is None else self.mask.transpose(axes)
        return NormalisedRows(image, self.changes, mask)

    def take(self, first: int, last: int) -> Tensor:
        """Rows `first` to `last` of all channels, float32 in memory of their own."""
        rows = np.array(self.image[:, first:last], dtype=np.float32, order="C")
        mask = None if self.mask is None else self.mask[first:last]
        for channel, change in zip(rows, self.changes, strict=True):
            change(channel, mask)
        return torch.from_numpy(rows)


def foreground_mask(image: Array) -> Array:
    """Voxels `(z, y, x)` that are not zero in every channel, with holes filled."""
    return np.asarray(ndimage.binary_fill_holes((image != 0).any(axis=0)))


def _unchanged(channel: Array, mask: Array | None) -> None:
    return


def _ct(image: Array, how: Normalisation, mask: Array | None) -> Change:
    def change(channel: Array, mask: Array | None) -> None:
        np.clip(channel, how.low, how.high, out=channel)
        channel -= how.mean
        channel /= how.std

    return change


def _z_score(image: Array, how: Normalisation, mask: Array | None) -> Change:
    inside = np.ascontiguousarray(image) if mask is None else image[mask]
    mean = inside.mean(dtype=np.float64) if inside.size else 0.0
    std = _deviation(inside.reshape(-1), mean) if inside.size else 1.0

    def change(channel: Array, mask: Array | None) -> None:
        channel -= np.float32(mean)
        channel /= np.float32(max(std, 1e-8))
        if how.masked and mask is not None:
            channel[~mask] = 0

    return change


def _deviation(values: Array, mean: float) -> float:
    """What `values.std(dtype=np.float64)` is to the last bit, without a copy of them
    in double precision.
    """
    return float(np.sqrt(_squares(values, np.float64(mean)) / len(values)))


def _squares(values: Array, mean: np.float64) -> np.float64:
    """Sum of squared deviations of `(n,)`, added up in numpy's order: in pairs."""
    if len(values) > AT_ONCE:
        half = len(values) // 2
        half -= half % 8
        return _squares(values[:half], mean) + _squares(values[half:], mean)
    deviations = values - mean
    return np.float64((deviations * deviations).sum())


def _rescale(image: Array, how: Normalisation, mask: Array | None) -> Change:
    low = np.float32(image.min())
    high = np.float32(image.max())

    def change(channel: Array, mask: Array | None) -> None:
        channel -= low
        channel /= max(high - low, np.float32(1e-8))

    return change


def _rgb(image: Array, how: Normalisation, mask: Array | None) -> Change:
    def change(channel: Array, mask: Array | None) -> None:
        channel /= np.float32(255)

    return change


def _keep(image: Array, how: Normalisation, mask: Array | None) -> Change:
    return _unchanged


_FITTED = {
    "ct": _ct,
    "z-score": _z_score,
    "rescale-0-1": _rescale,
    "rgb-0-1": _rgb,
    "none": _keep,
}
