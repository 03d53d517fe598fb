"""Texture within a mask from the values in it alone: a voxel outside cannot change the
result, not by rounding either.
"""

import numpy as np
from scipy import ndimage

from trivox.inference.classes.case_masks import box_of
from trivox.volumes.volume import Array, Spacing

BINS = 32
"""Grey levels of the entropy, over three standard deviations either side of the mean.
"""
AXES = ("z", "y", "x")


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
        box = (slice(0, 1), slice(0, 1), slice(0, 1))
    mask = mask[box]
    inside = values[box][mask]
    mean, std = (inside.mean(), inside.std()) if inside.size else (np.nan, np.nan)
    scale = (
        std if std > 1e-6 * max(abs(mean), 1e-6) else np.nan
    )  # constant but for rounding: no texture
    values = np.zeros(mask.shape)
    values[mask] = inside - mean
    steps = [_differences(values, mask, axis) for axis in range(3)]
    gradient, laplacian = (
        _gradient(steps, mask, spacing),
        _laplacian(steps, mask, spacing),
    )
    found = {"gradient": gradient, "Laplacian": laplacian}
    found |= {
        "relative gradient": gradient / scale,
        "relative Laplacian": laplacian / scale,
    }
    for axis, (step, both) in zip(AXES, steps, strict=True):
        squares = step[both] ** 2
        variogram = squares.mean() / 2 / scale**2 if squares.size else np.nan
        found[f"decorrelation along {axis}"] = variogram / spacing[AXES.index(axis)]
    for size in (3, 5):
        found[f"local std of {size} voxels"] = (
            local_std(values, mask, _box_sides(spacing, size)) / scale
        )
    found["entropy"] = _entropy(values[mask] / scale)
    return {name: float(value) for name, value in found.items()}


def local_std(values: Array, mask: Array, sides: tuple[int, ...]) -> float:
    """Mean over the mask of the standard deviation in boxes of odd `sides`, each over
    those voxels that lie in the mask.

    values: zero outside the mask. NaN if no box holds more than half its voxels.
    """
    count = ndimage.uniform_filter(mask.astype(np.float64), sides, mode="constant")
    enough = mask & (count > 0.5)
    if not enough.any():
        return np.nan
    first, second = (
        ndimage.uniform_filter(v, sides, mode="constant")[enough] / count[enough]
        for v in (values, values**2)
    )
    return float(np.sqrt(np.clip(second - first**2, 0, None)).mean())


def _box_sides(spacing: Spacing, size: int) -> tuple[int, ...]:
    """Odd sides in voxels of a box that measures about `size` of the largest voxel side
    along every axis.
    """
    return tuple(
        2 * round((size - 1) / 2 * max(spacing) / step) + 1 for step in spacing
    )


def _differences(values: Array, mask: Array, axis: int) -> tuple[Array, Array]:
    """Step to the next voxel along an axis, and where both voxels lie in the mask; one
    shorter than the mask there.
    """
    lower, upper = (
        tuple(s if a == axis else slice(None) for a in range(3))
        for s in (slice(None, -1), slice(1, None))
    )
    return values[upper] - values[lower], mask[upper] & mask[lower]


def _gradient(steps: list[tuple[Array, Array]], mask: Array, spacing: Spacing) -> float:
    """Mean magnitude of forward differences where all three neighbours lie in the mask."""
    total, known = np.zeros(mask.shape), mask.copy()
    for axis, (step, both) in enumerate(steps):
        here = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        valid = np.zeros_like(mask)
        valid[here] = both
        known &= valid
        total[here] += (step / spacing[axis]) ** 2
    return float(np.sqrt(total[known]).mean()) if known.any() else np.nan


def _laplacian(
    steps: list[tuple[Array, Array]], mask: Array, spacing: Spacing
) -> float:
    """Mean magnitude of the sum of second differences where all six neighbours lie in
    the mask.
    """
    total, known = np.zeros(mask.shape), mask.copy()
    for axis, (step, both) in enumerate(steps):
        ahead, behind, middle = (
            tuple(s if a == axis else slice(None) for a in range(3))
            for s in (slice(1, None), slice(None, -1), slice(1, -1))
        )
        valid = np.zeros_like(mask)
        if mask.shape[axis] > 2:
            valid[middle] = both[ahead] & both[behind]
            total[middle] += (step[ahead] - step[behind]) / spacing[axis] ** 2
        known &= valid
    return float(np.abs(total[known]).mean()) if known.any() else np.nan


def _entropy(standardised: Array) -> float:
    if not standardised.size or np.isnan(standardised[0]):
        return np.nan
    level = np.clip((standardised + 3) * (BINS / 6), 0, BINS - 1).astype(np.int64)
    share = np.bincount(level) / level.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum())
