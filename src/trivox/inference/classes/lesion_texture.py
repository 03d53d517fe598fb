"""Texture within a mask from the values in it alone: a voxel outside cannot change the
result, not by rounding either.
"""

import numpy as np
from scipy import ndimage

from trivox.datasets.boxes import box_of
from trivox.volumes.volume import Array, Spacing

BINS = 32
"""Grey levels of the entropy, over three standard deviations either side of the mean.
"""
AXES = ("z", "y", "x")

PixelStep = tuple[Array, Array]
"""Difference to the next voxel along an axis, and where both lie in the mask."""


def texture_features(values: Array, mask: Array, spacing: Spacing) -> dict[str, float]:
    """Texture of one channel `(z, y, x)` within `mask`; spacing: mm (z, y, x).

    NaN where too few voxels tell.

    gradient, Laplacian: mean magnitude per mm and mm2, from differences between voxels
    that lie in the mask, and relative to the standard deviation (which leaves the grain
    of the texture alone); decorrelation along an axis: (1 - correlation of neighbours)
    per mm, that is the first step of the variogram; local std: mean of the standard
    deviation in boxes of about 3 and 5 of the largest voxel side, relative to the
    overall one; entropy: of 32 grey levels, in bits.
    """
    box = box_of(mask)
    if box is None:
        one = slice(0, 1)
        box = (one, one, one)
    mask = mask[box]
    centred, scale = _centred(values[box], mask)
    steps = [_differences(centred, mask, axis) for axis in range(3)]
    gradient = _gradient(steps, mask, spacing)
    laplacian = _laplacian(steps, mask, spacing)
    features = {
        "gradient": gradient,
        "Laplacian": laplacian,
        "relative gradient": gradient / scale,
        "relative Laplacian": laplacian / scale,
    }
    for axis, name in enumerate(AXES):
        decorrelation = _variogram(steps[axis], scale) / spacing[axis]
        features[f"decorrelation along {name}"] = decorrelation
    for size in (3, 5):
        sides = _box_sides(spacing, size)
        local = local_std(centred, mask, sides)
        features[f"local std of {size} voxels"] = local / scale
    features["entropy"] = _entropy(centred[mask] / scale)
    return {name: float(value) for name, value in features.items()}


def _centred(values: Array, mask: Array) -> tuple[Array, float]:
    """Values less their mean, zero outside the mask, and their standard deviation; NaN
    where they are constant but for rounding: no texture.
    """
    centred = np.zeros(mask.shape)
    inside = values[mask]
    if not inside.size:
        return centred, np.nan
    mean = inside.mean()
    scale = inside.std()
    centred[mask] = inside - mean
    rounding = 1e-6 * max(abs(mean), 1e-6)
    if scale <= rounding:
        return centred, np.nan
    return centred, scale


def _variogram(steps: PixelStep, scale: float) -> float:
    """Half the mean square of the steps between neighbours, relative to the variance."""
    step, both = steps
    squares = step[both] ** 2
    if not squares.size:
        return np.nan
    return float(squares.mean() / 2 / scale**2)


def local_std(values: Array, mask: Array, sides: tuple[int, ...]) -> float:
    """Mean over the mask of the standard deviation in boxes of odd `sides`, each over
    those voxels that lie in the mask.

    values: zero outside the mask. NaN if no box holds more than half its voxels.
    """
    count = ndimage.uniform_filter(mask.astype(np.float64), sides, mode="constant")
    enough = mask & (count > 0.5)
    if not enough.any():
        return np.nan
    sums = ndimage.uniform_filter(values, sides, mode="constant")
    squares = ndimage.uniform_filter(values**2, sides, mode="constant")
    mean = sums[enough] / count[enough]
    variance = squares[enough] / count[enough] - mean**2
    deviation = np.sqrt(np.clip(variance, 0, None))
    return float(deviation.mean())


def _box_sides(spacing: Spacing, size: int) -> tuple[int, ...]:
    """Odd sides in voxels of a box that measures about `size` of the largest voxel side
    along every axis.
    """
    half = (size - 1) / 2 * max(spacing)
    sides = []
    for step in spacing:
        voxels = round(half / step)
        sides.append(2 * voxels + 1)
    return tuple(sides)


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    """A part of an axis, and all of the others."""
    index = [slice(None)] * 3
    index[axis] = part
    return tuple(index)


def _differences(values: Array, mask: Array, axis: int) -> PixelStep:
    """Step to the next voxel along an axis, and where both voxels lie in the mask; one
    shorter than the mask there.
    """
    lower = _along(axis, slice(None, -1))
    upper = _along(axis, slice(1, None))
    step = values[upper] - values[lower]
    both = mask[upper] & mask[lower]
    return step, both


def _gradient(steps: list[PixelStep], mask: Array, spacing: Spacing) -> float:
    """Mean magnitude of forward differences where all three neighbours lie in the mask."""
    total = np.zeros(mask.shape)
    known = mask.copy()
    for axis, (step, both) in enumerate(steps):
        here = _along(axis, slice(None, -1))
        valid = np.zeros_like(mask)
        valid[here] = both
        known &= valid
        slope = step / spacing[axis]
        total[here] += slope**2
    if not known.any():
        return np.nan
    magnitude = np.sqrt(total[known])
    return float(magnitude.mean())


def _laplacian(steps: list[PixelStep], mask: Array, spacing: Spacing) -> float:
    """Mean magnitude of the sum of second differences where all six neighbours lie in
    the mask.
    """
    total = np.zeros(mask.shape)
    known = mask.copy()
    for axis, (step, both) in enumerate(steps):
        ahead = _along(axis, slice(1, None))
        behind = _along(axis, slice(None, -1))
        middle = _along(axis, slice(1, -1))
        valid = np.zeros_like(mask)
        if mask.shape[axis] > 2:
            valid[middle] = both[ahead] & both[behind]
            second = step[ahead] - step[behind]
            total[middle] += second / spacing[axis] ** 2
        known &= valid
    if not known.any():
        return np.nan
    magnitude = np.abs(total[known])
    return float(magnitude.mean())


def _entropy(standardised: Array) -> float:
    """Bits of the histogram of standardised values `(n,)`."""
    if not standardised.size or np.isnan(standardised[0]):
        return np.nan
    scaled = (standardised + 3) * (BINS / 6)
    level = np.clip(scaled, 0, BINS - 1).astype(np.int64)
    share = np.bincount(level) / level.size
    share = share[share > 0]
    surprise = share * np.log2(share)
    return float(-surprise.sum())
