"""Losses of overlap: Dice, generalised Dice, Tversky, focal Tversky.

`batch` pools the sums over the batch and all ranks before the ratio is taken: small
structures that are missing in most patches then give a steadier gradient. A target that
is absent and predicted absent costs 0.
"""

import torch
from torch import Tensor

from trivox.learning.losses.targets import SMOOTH, SoftCounts, soft_counts
from trivox.uploads import on_device

FLOOR = 1e-6
"""Least error of focal Tversky: below it the slope of the root would grow without
bound.
"""


def dice(
    logits: Tensor,
    labels: Tensor,
    *,
    regions: Tensor | None = None,
    batch: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """Soft Dice loss, `1 - (2 sum(p y) + s) / (sum(p) + sum(y) + s)`, mean over targets
    (Milletari et al. 2016; nnU-Net).

    weights: of the targets, `(target,)`, for a weighted mean.
    """
    overlap, mass, size = soft_counts(logits, labels, regions=regions, batch=batch)
    return 1 - _mean((2 * overlap + SMOOTH) / (mass + size + SMOOTH), weights)


def _mean(values: Tensor, weights: Tensor | None) -> Tensor:
    """Mean of `(b, target)`, weighted by `(target,)`."""
    if weights is None:
        return values.mean()
    weights = on_device(weights, values.device).to(values.dtype)
    share = weights / weights.sum()
    return torch.einsum("bt,t->", values, share) / len(values)


def generalised_dice(
    logits: Tensor,
    labels: Tensor,
    *,
    regions: Tensor | None = None,
    batch: bool = False,
) -> Tensor:
    """Generalised Dice, `1 - 2 sum_c w_c sum(p y) / sum_c w_c sum(p + y)` with
    `w_c = 1 / sum(y_c)^2` (Sudre et al. 2017).

    The largest weight is scaled to 1, so that the smoothing is as small as in Dice; an
    absent target has weight 1.
    """
    overlap, mass, size = soft_counts(logits, labels, regions=regions, batch=batch)
    least = size.masked_fill(size == 0, float("inf")).amin(1, keepdim=True)  # (b, 1)
    weight = (least / size).square().masked_fill(size == 0, 1.0)
    top = (weight * overlap).sum(1)
    bottom = (weight * (mass + size)).sum(1)
    return 1 - ((2 * top + SMOOTH) / (bottom + SMOOTH)).mean()


def tversky(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    regions: Tensor | None = None,
    batch: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """`1 - TP / (TP + alpha FP + beta FN)`, mean over targets (Salehi et al. 2017).

    alpha = beta = 0.5 is Dice; beta above alpha punishes missed voxels more than false
    ones.
    """
    counts = soft_counts(logits, labels, regions=regions, batch=batch)
    return 1 - _mean(_tversky_index(counts, alpha, beta), weights)


def focal_tversky(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 4 / 3,
    regions: Tensor | None = None,
    batch: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """`(1 - Tversky index)^(1 / gamma)`, mean over targets (Abraham & Khan 2019, gamma
    = 4/3).
    """
    counts = soft_counts(logits, labels, regions=regions, batch=batch)
    index = _tversky_index(counts, alpha, beta)
    return _mean((1 - index).clamp(min=FLOOR).pow(1 / gamma), weights)


def _tversky_index(counts: SoftCounts, alpha: float, beta: float) -> Tensor:
    """Half of Dice's smoothing, since Dice counts every voxel twice: so the two agree
    at alpha = beta = 0.5.
    """
    overlap, mass, size = counts
    wrong = alpha * (mass - overlap) + beta * (size - overlap)
    return (overlap + SMOOTH / 2) / (overlap + wrong + SMOOTH / 2)
