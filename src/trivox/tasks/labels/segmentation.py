"""Segmentation: exclusive labels or overlapping regions, from one or several registered
volumes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.datasets.class_tables import with_classes
from trivox.datasets.dataset import Dataset
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, RecipeError
from trivox.learning.losses.choice import LossSetup, make_loss
from trivox.learning.losses.combined import AdaptiveLoss
from trivox.learning.losses.targets import region_targets
from trivox.learning.losses.weighting import class_weights
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime, rank, world_size
from trivox.learning.tracking import RunLog
from trivox.networks.registry import build_network
from trivox.planning.plan import Plan
from trivox.preparation.batches import BatchSource, Source
from trivox.preparation.sampler import PatchSampler
from trivox.tasks.console import Console
from trivox.tasks.labels.finish import finish_labels
from trivox.tasks.labels.forecast import forecast_training
from trivox.tasks.stages import Prepared, prepare_run
from trivox.tasks.task import TRAINING, VALIDATION, RunRequest, Task
from trivox.volumes.volume import Array


@dataclass(frozen=True, eq=False)
class SegmentationObjective(Objective):
    """The recipe's loss at every supervised scale; validation Dice from predictions
    pooled over patches.
    """

    labels: LabelScheme
    criterion: nn.Module
    regions: Tensor
    """Membership `(target, index)`."""

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
            class_weights=_with(
                class_weights(counts, recipe.loss_options), weights, plan.labels
            ),
            target_weights=weights,
        )
        return cls(plan.labels, make_loss(recipe.loss, setup), regions)

    @property
    def module(self) -> nn.Module | None:
        """What is learnt beside the network, to be trained without weight decay, moved,
        saved and loaded with it.
        """
        return self.criterion if isinstance(self.criterion, AdaptiveLoss) else None

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
        return (
            torch.stack(parts, dim=1).double()
            if labels.device.type != "mps"
            else torch.stack(parts, dim=1).float()
        )

    def score(self, counts: Tensor) -> dict[str, float]:
        """Dice and IoU of each target and their means; targets absent from reference
        and prediction are left out.
        """
        hit, predicted, reference = counts.T
        dice = (2 * hit / (predicted + reference)).tolist()
        iou = (hit / (predicted + reference - hit)).tolist()
        seen = [d for d in dice if d == d]
        figures = {
            f"validation_dice/{name}": value
            for name, value in zip(self.labels.targets, dice, strict=True)
        }
        overlap = [i for i in iou if i == i]
        return {
            "validation_dice": sum(seen) / len(seen) if seen else float("nan"),
            "validation_iou": sum(overlap) / len(overlap) if overlap else float("nan"),
            **figures,
        }


class SegmentationTask(Task[Prepared]):
    """What training needs to know about segmentation."""

    def prepare(
        self, request: RunRequest, recipe: Recipe, runtime: Runtime, console: Console
    ) -> Prepared:
        """Check, fingerprint, plan, preprocess."""

        def fit(dataset: Dataset) -> Dataset:
            return self.dataset(
                dataset
                if request.classes is None
                else with_classes(dataset, request.classes)
            )

        return prepare_run(
            request.dataset,
            request.out,
            recipe,
            runtime=runtime,
            fit=fit,
            plan_file=request.plan,
            prepared=request.prepared,
            console=console,
        )

    def dataset(self, dataset: Dataset) -> Dataset:
        """Cases whose label map is not known teach nothing here; classes only keep the
        folds balanced.
        """
        if dataset.task == "reconstruction":
            raise DataError(
                f"{dataset.root}: holds X-rays and volumes, no label maps; add --task reconstruction"
            )
        cases = (
            c if c.label is not None else c.model_copy(update={"class_name": None})
            for c in dataset.cases
        )
        return dataset.model_copy(
            update={"task": "segmentation", "cases": tuple(cases)}
        )

    def network(
        self, prepared: Prepared, recipe: Recipe, names: Sequence[str]
    ) -> nn.Module:
        """A network that gives logits of the plan's labels."""
        plan = prepared.plan
        return build_network(
            plan.network,
            plan.topology,
            channels=len(plan.inputs),
            outputs=plan.labels.output_channels,
            deep_supervision=recipe.deep_supervision,
            options=plan.network_options,
        )

    def objective(
        self, prepared: Prepared, recipe: Recipe, names: Sequence[str]
    ) -> Objective:
        """Loss and score for training on the cases `names`."""
        voxels = prepared.store.mean_voxels(names, len(prepared.plan.labels.values))
        return SegmentationObjective.of(prepared.plan, recipe, voxels=voxels)

    def source(
        self,
        prepared: Prepared,
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> Source:
        """Batches of patches."""
        return batch_source(prepared, recipe, names, training=training)

    def micro_batch(
        self, prepared: Prepared, recipe: Recipe, runtime: Runtime, log: RunLog
    ) -> int | None:
        """By forecast."""
        batch = len(rank_positions(prepared.plan, recipe))
        return forecast_training(prepared.plan, recipe, runtime, batch=batch, log=log)

    def channels(self, prepared: Prepared) -> int:
        """Channels of the plan."""
        return len(prepared.plan.inputs)

    def finish(
        self,
        request: RunRequest,
        recipe: Recipe,
        prepared: Prepared,
        folders: Mapping[int, Path],
        console: Console,
    ) -> dict[str, Any]:
        """Bundle, validation on the source images, postprocessing chosen there, report."""
        return finish_labels(request, recipe, prepared, folders, console)


def rank_positions(plan: Plan, recipe: Recipe) -> range:
    """Places of this rank in the global batch: every `world_size`-th."""
    ranks = world_size()
    batch = recipe.batch_size or plan.batch_size
    return range(
        rank(), -(-batch // ranks) * ranks, ranks
    )  # equal shares: the mean over ranks is that over samples


def batch_source(
    prepared: Prepared, recipe: Recipe, names: Sequence[str], *, training: bool
) -> BatchSource:
    """Batches of the named cases; each rank takes every `world_size`-th sample of the
    global batch.
    """
    plan, positions = prepared.plan, rank_positions(prepared.plan, recipe)
    sampler = PatchSampler(
        prepared.store,
        names,
        plan.patch_size,
        positions.stop,
        recipe.foreground_fraction,
    )
    return BatchSource(
        sampler=sampler,
        seed=recipe.seed,
        spacing=plan.spacing,
        positions=positions,
        augmentation=recipe.augmentation if training else None,
        stream=TRAINING if training else VALIDATION,
        masks=int(plan.mask_channel),
    )


def target_weights(labels: LabelScheme, given: Mapping[str, float]) -> Tensor | None:
    """Weights `(target,)` by name, 1 where none is given; raises `RecipeError` for
    names that the labels do not have.
    """
    unknown = [name for name in given if name not in labels.targets]
    if unknown:
        raise RecipeError(
            f"recipe setting 'loss_options.target_weights': {unknown} are not among {', '.join(labels.targets)}"
        )
    weights = torch.tensor([given.get(name, 1.0) for name in labels.targets])
    if given and not weights.sum():
        raise RecipeError(
            "recipe setting 'loss_options.target_weights': at least one weight must be above 0"
        )
    return weights if given else None


def _with(
    classes: Tensor | None, targets: Tensor | None, labels: LabelScheme
) -> Tensor | None:
    """Class weights times target weights; exclusive classes have the background first."""
    if targets is None:
        return classes
    own = torch.cat([targets.new_ones(1), targets]) if labels.exclusive else targets
    return own if classes is None else classes * own.to(classes)
