"""Segmentation: exclusive labels or overlapping regions, from one or several registered volumes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trivox.config import Recipe
from trivox.datasets.labels import LabelScheme
from trivox.learning.losses import (
    dice_binary_cross_entropy,
    dice_cross_entropy,
    region_targets,
    shrink_labels,
    supervision_weights,
)
from trivox.planning.plan import Plan


@dataclass(frozen=True, eq=False)
class SegmentationObjective:
    """Dice + cross-entropy at every supervised scale; validation Dice from predictions pooled over patches."""

    labels: LabelScheme
    dice_weight: float
    ce_weight: float
    batch_dice: bool
    regions: Tensor
    """Membership `(target, index)`."""

    @classmethod
    def of(cls, plan: Plan, recipe: Recipe) -> "SegmentationObjective":
        """The objective for a plan under a recipe."""
        batch = plan.batch_dice if recipe.batch_dice is None else recipe.batch_dice
        regions = torch.from_numpy(plan.labels.region_table())
        return cls(plan.labels, recipe.loss.get("dice", 0.0), recipe.loss.get("cross_entropy", 0.0), batch, regions)

    def loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """Weighted sum over the scales, finest first; `labels` are indices `(b, z, y, x)` at full resolution."""
        scales = [outputs] if isinstance(outputs, Tensor) else outputs
        weights = supervision_weights(len(scales))
        parts = [
            weight * self._one_scale(logits, shrink_labels(labels, logits.shape[2:]))
            for weight, logits in zip(weights, scales, strict=True)
            if weight > 0
        ]
        # a head without weight still takes part, with gradient zero: DDP waits for every parameter
        idle = sum(logits.sum() * 0 for weight, logits in zip(weights, scales, strict=True) if weight == 0)
        return torch.stack(parts).sum() + idle

    def _one_scale(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.labels.exclusive:
            return dice_cross_entropy(
                logits, labels, dice_weight=self.dice_weight, ce_weight=self.ce_weight, batch=self.batch_dice
            )
        return dice_binary_cross_entropy(
            logits, labels, self.regions, dice_weight=self.dice_weight, ce_weight=self.ce_weight, batch=self.batch_dice
        )

    def count(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """True positives, predicted and reference voxels, `(target, 3)`, from hard predictions."""
        valid = labels >= 0
        reference = region_targets(labels, self.regions)  # (b, target, z, y, x)
        if self.labels.exclusive:
            predicted = region_targets(outputs.max(1).indices, self.regions)
        else:
            predicted = outputs > 0
        predicted = predicted & valid[:, None]
        axes = (0, 2, 3, 4)
        parts = [(predicted & reference).sum(axes), predicted.sum(axes), reference.sum(axes)]
        return torch.stack(parts, dim=1).double() if labels.device.type != "mps" else torch.stack(parts, dim=1).float()

    def score(self, counts: Tensor) -> dict[str, float]:
        """Dice and IoU of each target and their means; targets absent from reference and prediction are left out."""
        hit, predicted, reference = counts.T
        dice = (2 * hit / (predicted + reference)).tolist()
        iou = (hit / (predicted + reference - hit)).tolist()
        seen = [d for d in dice if d == d]
        figures = {f"validation_dice/{name}": value for name, value in zip(self.labels.targets, dice, strict=True)}
        overlap = [i for i in iou if i == i]
        return {
            "validation_dice": sum(seen) / len(seen) if seen else float("nan"),
            "validation_iou": sum(overlap) / len(overlap) if overlap else float("nan"),
            **figures,
        }
