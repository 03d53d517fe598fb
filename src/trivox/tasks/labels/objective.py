"""What is learnt of label maps: the recipe's loss at every scale, Dice of pooled patches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.datasets.labels import LabelScheme
from trivox.errors import RecipeError
from trivox.learning.losses.choice import ON_HOST, LossSetup, make_loss
from trivox.learning.losses.combined import AdaptiveLoss
from trivox.learning.losses.targets import region_targets
from trivox.learning.losses.weighting import class_weights
from trivox.learning.objective import Objective
from trivox.learning.runtime import widest_type
from trivox.planning.plan import Plan
from trivox.tasks.labels.unseen import UnseenTargets
from trivox.volumes.volume import Array


@dataclass(frozen=True, eq=False)
class SegmentationObjective(Objective):
    """The recipe's loss at every supervised scale; validation Dice from predictions
    pooled over patches.
    """

    headlines: ClassVar[tuple[str, ...]] = ("validation_dice",)

    labels: LabelScheme
    criterion: nn.Module
    regions: Tensor
    """Membership `(target, index)`."""
    unseen: UnseenTargets = field(default_factory=UnseenTargets)
    on_host: bool = False
    """Whether a part of the loss is computed on the CPU."""

    @classmethod
    def of(
        cls, plan: Plan, recipe: Recipe, *, voxels: Array | None = None
    ) -> "SegmentationObjective":
        """The objective for a plan under a recipe.

        voxels: of each label index in a training case, on average, `(index,)`; class
        weights are made from them.
        """
        regions = torch.from_numpy(plan.labels.region_table())
        counts = None if voxels is None else torch.from_numpy(voxels)
        if counts is not None and not plan.labels.exclusive:
            counts = regions.to(counts.dtype) @ counts
        weights = target_weights(plan.labels, recipe.loss_options.target_weights)
        setup = LossSetup(
            options=recipe.loss_options,
            regions=None if plan.labels.exclusive else regions,
            batch=plan.batch_dice if recipe.batch_dice is None else recipe.batch_dice,
            class_weights=_joint_weights(
                class_weights(counts, recipe.loss_options), weights, plan.labels
            ),
            target_weights=weights,
        )
        criterion = make_loss(recipe.loss, setup)
        return cls(
            plan.labels,
            criterion,
            regions,
            UnseenTargets.under(recipe),
            on_host=any(recipe.loss.get(name, 0.0) > 0 for name in ON_HOST),
        )

    @property
    def module(self) -> nn.Module | None:
        """What is learnt beside the network, to be trained without weight decay, moved,
        saved and loaded with it.
        """
        return self.criterion if isinstance(self.criterion, AdaptiveLoss) else None

    @property
    def repeats(self) -> bool:
        """Whether every step computes the same, all of it on the device."""
        return self.module is None and not self.on_host

    def begin(self, spent: float, epoch: int) -> None:
        """Note where training stands."""
        self.unseen.spent = spent

    def state(self) -> Mapping[str, object]:
        """Targets that were predicted nowhere."""
        return {"unseen": self.unseen.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `state`."""
        self.unseen.restore(state.get("unseen", {}))

    def remarks(self, figures: dict[str, float]) -> list[str]:
        """A line about a target that stays unseen."""
        return self.unseen.remarks()

    def figures(self) -> dict[str, float]:
        """Numbers for the record of an epoch: the weights of the loss terms where they
        are learnt.
        """
        if not isinstance(self.criterion, AdaptiveLoss):
            return {}
        return {
            f"loss_weight/{name}": weight
            for name, weight in self.criterion.term_weights().items()
        }

    def loss(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """The loss of all outputs, finest first; `labels` are indices `(b, z, y, x)` at
        full resolution.
        """
        value: Tensor = self.criterion(outputs, labels)
        return value

    def count(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """True positives, predicted and reference voxels, `(target, 3)`, from hard
        predictions.
        """
        valid = labels >= 0
        reference = region_targets(labels, self.regions)  # (b, target, z, y, x)
        if self.labels.exclusive:
            predicted = region_targets(outputs.max(1).indices, self.regions)
        else:
            predicted = outputs > 0
        predicted = predicted & valid[:, None]
        axes = (0, 2, 3, 4)
        parts = [
            (predicted & reference).sum(axes),
            predicted.sum(axes),
            reference.sum(axes),
        ]
        return torch.stack(parts, dim=1).to(widest_type(labels.device))

    def summary(self, figures: Mapping[str, float]) -> str:
        """The mean Dice."""
        return f"dice {figures['validation_dice']:.3f}"

    def score(self, counts: Tensor) -> dict[str, float]:
        """Dice and IoU of each target and their means; targets absent from reference
        and prediction are left out.
        """
        hit, predicted, reference = counts.T
        voxels = zip(predicted.tolist(), reference.tolist(), strict=True)
        self.unseen.note(dict(zip(self.labels.targets, voxels, strict=True)))
        dice = (2 * hit / (predicted + reference)).tolist()
        iou = (hit / (predicted + reference - hit)).tolist()
        each = {
            f"validation_dice/{name}": value
            for name, value in zip(self.labels.targets, dice, strict=True)
        }
        return {
            "validation_dice": _mean_of_known(dice),
            "validation_iou": _mean_of_known(iou),
            **each,
        }


def _mean_of_known(values: Sequence[float]) -> float:
    """The mean without NaN; NaN if nothing is left."""
    known = [value for value in values if value == value]
    return sum(known) / len(known) if known else float("nan")


def target_weights(labels: LabelScheme, given: Mapping[str, float]) -> Tensor | None:
    """Weights `(target,)` by name, 1 where none is given; raises `RecipeError` for
    names that the labels do not have.
    """
    unknown = [name for name in given if name not in labels.targets]
    if unknown:
        raise RecipeError(
            f"recipe setting 'loss_options.target_weights': {unknown} are not among "
            f"{', '.join(labels.targets)}"
        )
    weights = torch.tensor([given.get(name, 1.0) for name in labels.targets])
    if given and not weights.sum():
        raise RecipeError(
            "recipe setting 'loss_options.target_weights': at least one weight must be "
            "above 0"
        )
    return weights if given else None


def _joint_weights(
    classes: Tensor | None, targets: Tensor | None, labels: LabelScheme
) -> Tensor | None:
    """Class weights times target weights; exclusive classes have the background first."""
    if targets is None:
        return classes
    if labels.exclusive:
        targets = torch.cat([targets.new_ones(1), targets])
    return targets if classes is None else classes * targets.to(classes)
