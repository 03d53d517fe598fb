"""How alike two volumes are: PSNR and 3-D SSIM, as losses and reports of
reconstructions take them.

Volumes are normalised HU, `(HU - low) / (high - low)` of a stated window, so that the
data range is 1 whatever the volumes hold. Everything is computed in fp32, also under
autocast.
"""

from functools import lru_cache

import torch
from torch import Tensor

from trivox.learning.losses.targets import full_precision
from trivox.uploads import constant

SIGMA = 1.5
"""Of the Gaussian, in voxels."""
TAPS = 11
"""Voxels that the Gaussian spans."""
K1 = 0.01
K2 = 0.03
"""Wang's constants for a data range of 1."""
LEAST = (2 * K1**2, 2 * K2**2)
"""Of both sides of his ratios, whose parts are doubled here."""
SIGNS = (1.0, 1.0, 1.0, -1.0)
"""Of what is of a sum and of a difference, below and above a ratio's line."""
PERFECT_DB = 100.0


def psnr(prediction: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio `(b,)` in dB over whole volumes `(b, ...)`: `-10 log10
    MSE`, both clipped to 0..1.

    The peak is the window's width (1), never the volume's own maximum. At most 100 dB,
    which equal volumes get.
    """
    shown = full_precision(prediction).clamp(0, 1)
    wanted = full_precision(target).clamp(0, 1)
    error = shown - wanted
    squared = error.square()
    mean = squared.flatten(1).mean(1)
    least = 10 ** (-PERFECT_DB / 10)
    bels = mean.clamp(min=least).log10()
    return -10 * bels


def ssim3d(prediction: Tensor, target: Tensor) -> Tensor:
    """Structural similarity `(b,)` of volumes `(b, 1, z, y, x)` under 3-D Gaussian
    weights (Wang et al. 2004).

    Sigma 1.5 voxels, 11 taps (along an axis shorter than that: the largest odd number
    that fits), K 0.01 and 0.03, data range 1, population covariance; the mean over the
    places where the weights lie inside the volume whole.
    """
    similar = similarities(prediction, target)
    return similar.reshape(len(prediction), -1).mean(1)


def similarities(prediction: Tensor, target: Tensor) -> Tensor:
    """What `ssim3d` is the mean of, of all samples, `(b, z - 10, y - 10, x - 10)`."""
    with torch.autocast(prediction.device.type, enabled=False):
        p = full_precision(prediction).flatten(0, -4)
        t = full_precision(target).flatten(0, -4)
        both = torch.stack((p + t, p - t))
        powers = torch.cat((both, both.square()))
        means, squares = _weighted_means(powers).chunk(2)
        of_means = means.square()
        variances = squares - of_means
        parts = torch.stack((of_means, variances))
        # 4 p t = (p + t)^2 - (p - t)^2, and so for the covariance
        signs = constant(SIGNS, p.device).to(p.dtype)
        signs = signs.view(2, 2).expand(2, 2, 2)
        least = constant(LEAST, p.device).to(p.dtype)
        least = least.view(2, 1, 1)
        sides = torch.baddbmm(least, signs, parts.flatten(2))
        below, above = sides.unbind(1)
        luminance, contrast = above / below
        similar: Tensor = luminance * contrast
        return similar.view(means.shape[1:])


def _weighted_means(maps: Tensor) -> Tensor:
    """Means of `(..., z, y, x)` under the Gaussian about each place where it fits, one
    axis after the other.
    """
    z, y, x = maps.shape[-3:]
    along_z, along_y, along_x = (
        _gaussian_rows(size, maps.device, maps.dtype) for size in (z, y, x)
    )
    means = along_z @ maps.flatten(-2)
    means = along_y @ means.unflatten(-1, (y, x))
    weighted: Tensor = means @ along_x.T
    return weighted


# what is made in inference mode may not be used in training later
@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _gaussian_rows(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A matrix `(places, size)` whose rows are the same Gaussian, one voxel further on
    each.

    As a matrix product this is faster than a convolution of a single channel, on CPUs
    and GPUs.
    """
    largest_odd = size - (size + 1) % 2
    taps = min(TAPS, largest_odd)
    middle = taps // 2
    places = size - taps + 1
    tap = torch.arange(taps, device=device)
    first = torch.arange(places, device=device)
    offsets = tap.to(dtype) - middle
    squares = (offsets / SIGMA).square()
    kernel = (-0.5 * squares).exp()
    kernel = kernel / kernel.sum()
    index = first[:, None] + tap
    rows = torch.zeros(places, size, device=device, dtype=dtype)
    return rows.scatter(1, index, kernel.expand(places, -1))
