"""Losses of each voxel: cross-entropy, its hardest share, and focal loss; with class
weights and label smoothing.

Exclusive classes: `-w_y log p_y`, divided by the sum of the weights (torch's
convention). Regions: binary cross-entropy, weighted mean over regions. Label smoothing
(Szegedy et al. 2016) spreads the share `s` of the target evenly: 1 - s + s/c for the
true class of c, and 1 - s/2 for a region that a voxel is in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.learning.losses.targets import full_precision, region_targets
from trivox.learning.runtime import widest_type
from trivox.uploads import on_device


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    regions: Tensor | None = None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Mean over the labelled voxels of the batch; `class_weights` is `(c,)`."""
    value, weight = _of_voxels(
        logits, labels, regions, class_weights, label_smoothing, gamma=0.0
    )
    return _ratio(value.sum(), weight.sum())


def focal(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float = 2.0,
    regions: Tensor | None = None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """`-(1 - p_y)^gamma log p_y` (Lin et al. 2017), normalised as cross-entropy is,
    which it equals at gamma = 0.
    """
    value, weight = _of_voxels(
        logits, labels, regions, class_weights, label_smoothing, gamma=gamma
    )
    return _ratio(value.sum(), weight.sum())


def top_k_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    share: float = 0.1,
    regions: Tensor | None = None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy over the `share` of the batch's labelled voxels where it is largest
    (Wu et al. 2016; nnU-Net's TopK).
    """
    value, weight = _of_voxels(
        logits, labels, regions, class_weights, label_smoothing, gamma=0.0
    )
    value = value.flatten()
    valid = labels.flatten() >= 0
    most = max(1, round(share * len(value)))
    ranked = value.detach().masked_fill(~valid, float("-inf"))
    hardest = ranked.topk(most).indices
    # of all voxels, and so too many where some are ignored
    labelled = valid.sum().to(widest_type(labels.device))
    wanted = (share * labelled).round().clamp(min=1).minimum(labelled)
    counted = torch.arange(most, device=value.device) < wanted
    weights = weight.flatten()[hardest] * counted
    return _ratio((value[hardest] * counted).sum(), weights.sum())


def _ratio(value: Tensor, weight: Tensor) -> Tensor:
    """`value / weight`, and 0 where nothing is labelled."""
    return value / torch.where(weight > 0, weight, torch.ones_like(weight))


def _of_voxels(
    logits: Tensor,
    labels: Tensor,
    regions: Tensor | None,
    class_weights: Tensor | None,
    smoothing: float,
    *,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """Weighted loss of each voxel and its weight, both `(b, z, y, x)`; 0 where ignored."""
    logits = full_precision(logits)
    weights = class_weights
    if weights is not None:
        weights = on_device(weights, logits.device).to(logits.dtype)
    if regions is not None:
        return _of_regions(logits, labels, regions, weights, smoothing, gamma)
    valid = labels >= 0
    index = labels.clamp(min=0).long()
    weight = valid.to(logits.dtype) if weights is None else weights[index] * valid
    if gamma == 0:
        target = index.masked_fill(~valid, -1)
        value = F.cross_entropy(
            logits,
            target,
            weight=weights,
            ignore_index=-1,
            label_smoothing=smoothing,
            reduction="none",
        )
        return value, weight
    logarithm = logits.log_softmax(1)
    picked = logarithm.gather(1, index[:, None])[:, 0]
    value = (1 - smoothing) * weight * _focal(picked, gamma)
    if smoothing:
        each = _focal(logarithm, gamma) * valid[:, None]
        each = each if weights is None else each * weights.view(-1, 1, 1, 1)
        value = value + smoothing * each.mean(1)
    return value, weight


def _of_regions(
    logits: Tensor,
    labels: Tensor,
    regions: Tensor,
    weights: Tensor | None,
    smoothing: float,
    gamma: float,
) -> tuple[Tensor, Tensor]:
    valid = labels >= 0
    inside_region = region_targets(labels, regions).to(logits.dtype)
    target = inside_region * (1 - smoothing) + smoothing / 2
    if gamma == 0:
        value = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    else:
        inside = _focal(F.logsigmoid(logits), gamma)
        outside = _focal(F.logsigmoid(-logits), gamma)
        value = target * inside + (1 - target) * outside
    value = value if weights is None else value * weights.view(-1, 1, 1, 1)
    total = logits.shape[1] if weights is None else weights.sum()
    return value.sum(1) * valid, valid.to(logits.dtype) * total


def _focal(logarithm: Tensor, gamma: float) -> Tensor:
    """`-(1 - p)^gamma log p` from log p; near p = 1 the slope of the power is held
    finite for gamma below 1.
    """
    return -(-torch.expm1(logarithm)).clamp(min=1e-12).pow(gamma) * logarithm
