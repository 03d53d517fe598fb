"""Bringing intensities to a common scale, channel by channel, before resampling."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from trivox.planning.plan import Normalisation
from trivox.volumes.volume import Array


def normalise(
    image: Array, normalisations: Sequence[Normalisation], *, mask: Array | None = None
) -> Array:
    """Normalise `(c, z, y, x)` by the plan's scheme for each channel; returns new
    float32.

    mask: what counts as inside `(z, y, x)`; None: what is not zero.
    """
    # a copy: the caller's image stays as it was read
    result = np.array(image, dtype=np.float32, order="C")
    if mask is None and any(how.masked for how in normalisations):
        mask = foreground_mask(image)
    for channel, how in zip(result, normalisations, strict=True):
        if channel.any():  # a channel that the case lacks stays zero under every scheme
            _APPLY[how.scheme](channel, how, mask if how.masked else None)
    return result


def foreground_mask(image: Array) -> Array:
    """Voxels `(z, y, x)` that are not zero in every channel, with holes filled."""
    return np.asarray(ndimage.binary_fill_holes((image != 0).any(axis=0)))


def _ct(channel: Array, how: Normalisation, mask: Array | None) -> None:
    np.clip(channel, how.low, how.high, out=channel)
    channel -= how.mean
    channel /= how.std


def _z_score(channel: Array, how: Normalisation, mask: Array | None) -> None:
    inside = channel if mask is None else channel[mask]
    mean = inside.mean(dtype=np.float64) if inside.size else 0.0
    std = inside.std(dtype=np.float64) if inside.size else 1.0
    channel -= np.float32(mean)
    channel /= np.float32(max(std, 1e-8))
    if mask is not None:
        channel[~mask] = 0


def _rescale(channel: Array, how: Normalisation, mask: Array | None) -> None:
    low = channel.min()
    high = channel.max()
    channel -= low
    channel /= max(high - low, np.float32(1e-8))


def _rgb(channel: Array, how: Normalisation, mask: Array | None) -> None:
    channel /= np.float32(255)


def _keep(channel: Array, how: Normalisation, mask: Array | None) -> None:
    return


_APPLY = {
    "ct": _ct,
    "z-score": _z_score,
    "rescale-0-1": _rescale,
    "rgb-0-1": _rgb,
    "none": _keep,
}
