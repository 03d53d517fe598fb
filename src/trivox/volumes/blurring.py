"""Blur and low resolution of one axis as matrices, for `resampling.apply_along`."""

from functools import lru_cache

import torch
from torch import Tensor

from trivox.volumes.resampling import linear_matrix, nearest, neighbours


def blur_matrix(size: int, sigma: Tensor | float) -> Tensor:
    """Gaussian blur of one axis as a `(size, size)` operator; sigma in voxels.

    Equals `scipy.ndimage.gaussian_filter1d` (truncate 4, mode "nearest").
    """
    sigma = float(sigma)
    reach = int(4 * sigma + 0.5)
    taps = torch.arange(-reach, reach + 1)
    deviations = taps / max(sigma, 1e-6)
    weights = torch.exp(-0.5 * deviations**2)
    weights = weights / weights.sum()
    columns = torch.arange(size)[:, None] + taps
    columns = columns.clamp(0, size - 1)
    rows = weights.expand(size, -1).contiguous()
    matrix = torch.zeros(size, size)
    return matrix.scatter_add_(1, columns, rows)


@lru_cache(maxsize=512)
def low_resolution_matrix(size: int, coarse: int) -> Tensor:
    """The `(size, size)` operator of sampling an axis at `coarse` points (nearest) and
    going back linearly.
    """
    taken = nearest(size, coarse)
    low, high, weight = neighbours(coarse, size)
    return linear_matrix((taken[low], taken[high], weight), size)
