"""Dice and cross-entropy in one pass: one softmax buffer, analytic backward.

Soft Dice as in nnU-Net: `(2 sum(p y) + s) / (sum(p) + sum(y) + s)` with s = 1e-5,
without background, a sample at a time or over the batch. The loss is `ce_weight * CE +
dice_weight * (1 - Dice)`; nnU-Net leaves the 1 out, the gradients are equal.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.learning.losses.targets import (
    SMOOTH,
    complete,
    differentiable_sum,
    full_precision,
    region_targets,
    sums_by_class,
)
from trivox.learning.runtime import sum_over_ranks, world_size


class _DiceCrossEntropy(torch.autograd.Function):
    """Value and analytic gradient.

    Only the softmax probabilities and the labels are kept for backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        dice_weight: float,
        ce_weight: float,
        batch: bool,
    ) -> Tensor:
        flat = full_precision(logits.flatten(2))
        valid = labels.flatten(1) >= 0  # (b, n)
        index = labels.flatten(1).clamp(min=0).long()[:, None]  # (b, 1, n)
        probability, log_picked = _softmax(flat, index)
        count = valid.sum().clamp(min=1)
        cross_entropy = -(log_picked[:, 0] * valid).sum() / count
        overlap, size, mass = _sums(probability, index, valid)
        if batch:
            overlap = sum_over_ranks(overlap.sum(0, keepdim=True))
            size = sum_over_ranks(size.sum(0, keepdim=True))
            mass = sum_over_ranks(mass.sum(0, keepdim=True))
        denominator = (size + mass + SMOOTH).clamp(min=1e-8)
        dice = (2 * overlap + SMOOTH) / denominator
        ctx.save_for_backward(probability, index, valid, dice, denominator, count)
        ctx.settings = logits.shape, logits.dtype, dice_weight, ce_weight, batch
        return ce_weight * cross_entropy + dice_weight * (1 - dice[:, 1:].mean())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        probability, index, valid, dice, denominator, count = ctx.saved_tensors
        shape, dtype, dice_weight, ce_weight, batch = ctx.settings
        (gradient,) = gradients
        ranks = world_size() if batch else 1
        scale = dice_weight * gradient / dice[:, 1:].numel() * ranks
        # d loss / d p is `inside` at the true class plus `everywhere` at each class;
        # background takes no part in Dice
        inside = -2 * scale / denominator
        everywhere = scale * dice / denominator
        inside[:, 0] = 0
        everywhere[:, 0] = 0
        inside = inside.expand(shape[0], -1)
        everywhere = everywhere.expand(shape[0], -1)
        picked = probability.gather(1, index)
        at_true = picked * inside.gather(1, index[:, 0])[:, None]  # (b, 1, n)
        mean = torch.einsum("bcn,bc->bn", probability, everywhere)[:, None] + at_true
        ce = ce_weight * gradient / count
        result = (everywhere[:, :, None] + (ce - mean)).mul_(probability)
        result.scatter_add_(1, index, at_true - ce)
        if not complete(valid):
            result.mul_(valid[:, None])
        return result.reshape(shape).to(dtype), None, None, None, None


def _softmax(flat: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities `(b, c, n)` of logits, and the logarithms `(b, 1, n)` of those of
    the classes `index`; a single buffer of that size is taken.
    """
    highest = flat.amax(1, keepdim=True)
    probability = (flat - highest).exp_()
    total = probability.sum(1, keepdim=True)
    log_picked = flat.gather(1, index) - highest - total.log()
    return probability.div_(total), log_picked


def _sums(
    probability: Tensor, index: Tensor, valid: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of each class `(b, c)`: sum(p y), sum(y) and sum(p) over the valid voxels."""
    dtype = probability.dtype
    picked = probability.gather(1, index)[:, 0] * valid  # of the true class
    classes = probability.shape[1]
    overlap = sums_by_class(picked, index[:, 0], classes)
    size = sums_by_class(valid.to(dtype), index[:, 0], classes)
    if complete(valid):
        return overlap, size, probability.sum(2)
    return overlap, size, torch.einsum("bcn,bn->bc", probability, valid.to(dtype))


def dice_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    batch: bool = False,
) -> Tensor:
    """Soft Dice + cross-entropy over softmax classes; `batch` pools the Dice over the
    batch (and all ranks).
    """
    result: Tensor = _DiceCrossEntropy.apply(
        logits, labels, dice_weight, ce_weight, batch
    )
    return result


def dice_binary_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    regions: Tensor,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    batch: bool = False,
) -> Tensor:
    """The same for overlapping regions: sigmoid Dice and BCE, averaged over all
    regions.

    regions: `(region, index)` membership; `(b, z, y, x)` indices become `(b, region, z,
    y, x)` targets.
    """
    logits = full_precision(logits)
    valid = (labels >= 0)[:, None].to(logits.dtype)
    target = region_targets(labels, regions).to(logits.dtype)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    count = (valid.sum() * logits.shape[1]).clamp(min=1)
    cross_entropy = (entropy * valid).sum() / count
    probability = logits.sigmoid() * valid
    fields = (probability * target, target * valid, probability)
    parts = [part.flatten(2).sum(2) for part in fields]
    if batch:
        parts = [differentiable_sum(part.sum(0, keepdim=True)) for part in parts]
    overlap, size, mass = parts
    dice = (2 * overlap + SMOOTH) / (size + mass + SMOOTH).clamp(min=1e-8)
    return ce_weight * cross_entropy + dice_weight * (1 - dice.mean())
