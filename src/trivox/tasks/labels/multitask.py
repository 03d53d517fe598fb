"""Segmentation and a class for the case, from one encoder: the class is learnt from the
lesion, not from whole patches.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from trivox.config.options import ClassificationOptions
from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import lesion_indices, mask_table
from trivox.errors import DataError
from trivox.learning.case_classifier.monitor import ClassMonitor
from trivox.learning.losses.classes import balanced_weights, class_cross_entropy
from trivox.learning.losses.combined import AdaptiveLoss
from trivox.learning.losses.targets import region_targets
from trivox.learning.objective import Objective
from trivox.networks.class_head import (
    LesionMasks,
    MultitaskNetwork,
    Outputs,
    add_class_head,
    jitter,
)
from trivox.planning.plan import Plan
from trivox.preparation.classes import CaseClasses, Classed, ClassedLabels
from trivox.preparation.sampler import LesionSampling
from trivox.preparation.store import Store
from trivox.tasks.labels.segmentation import (
    SegmentationObjective,
    SegmentationTask,
    batch_source,
)
from trivox.tasks.stages import Prepared

ENOUGH = 0.25
"""Share of a lesion that has to be in view for its patch to count fully."""


@dataclass(eq=False)
class MultitaskObjective(Objective):
    """Segmentation loss and class loss.

    The class is judged only where the lesion is in view, and only where it is known.
    """

    segmentation: SegmentationObjective
    classes: tuple[str, ...]
    options: ClassificationOptions
    masks: Tensor
    """Membership `(mask, index)` of the lesion, the organ and the other targets."""
    prior: Tensor
    """Share of each class among the training cases."""
    class_weights: Tensor | None
    monitor: ClassMonitor
    adaptive: AdaptiveLoss | None = None
    weight: float = field(default=0.0, init=False)

    @classmethod
    def of(
        cls,
        plan: Plan,
        recipe: Recipe,
        *,
        dataset: Dataset,
        names: Sequence[str],
        voxels: Any,
    ) -> "MultitaskObjective":
        """For the training cases `names` of a dataset; nothing is counted on other
        cases.
        """
        options = recipe.classification
        counts = class_counts(dataset, names)
        total = torch.tensor(
            [counts[name] for name in dataset.classes], dtype=torch.float64
        )
        objective = cls(
            segmentation=SegmentationObjective.of(plan, recipe, voxels=voxels),
            classes=dataset.classes,
            options=options,
            masks=torch.from_numpy(
                mask_table(plan.labels, lesion_indices(plan.labels, options.lesion))
            ),
            prior=(total / total.sum()).float(),
            class_weights=balanced_weights(total, options),
            monitor=ClassMonitor(dataset.classes),
        )
        if options.weighting == "uncertainty":
            weights = {"segmentation": 1.0, "class": max(options.weight, 1e-3)}
            objective.adaptive = AdaptiveLoss(
                objective._terms, weights, rule="uncertainty"
            )
        objective.begin(0.0, 0)
        return objective

    @property
    def module(self) -> nn.Module | None:
        """What is learnt beside the network: the weights of the losses, where they are."""
        parts = [
            part
            for part in (self.segmentation.module, self.adaptive)
            if part is not None
        ]
        return nn.ModuleList(parts) if parts else None

    def begin(self, spent: float, epoch: int) -> None:
        """The weight of the class: 0 before a staged start, then growing to `boost`
        times its value.
        """
        options = self.options
        waiting = options.mode == "staged" and spent < options.start
        grown = 1 + (options.boost - 1) * min(1.0, epoch / options.boost_epochs)
        self.weight = 0.0 if waiting else options.weight * grown

    def inputs(self, images: Any, targets: ClassedLabels) -> tuple[Any, ...]:
        """Half of the samples are pooled inside the reference, grown or shrunk; the
        others inside the prediction.
        """
        known = (targets.labels >= 0).flatten(1).all(1)
        use = known & (torch.rand(len(images), device=images.device) < 0.5)
        return images, jitter(region_targets(targets.labels, self.masks).float()), use

    def loss(self, outputs: Outputs, targets: ClassedLabels) -> Tensor:
        """Segmentation loss plus the weighted class loss."""
        if self.adaptive is not None and self.weight > 0:
            value: Tensor = self.adaptive(outputs, targets)
            return value
        segmentation, classes = self._terms(outputs, targets).unbind()
        return segmentation + self.weight * classes

    def _terms(self, outputs: Any, targets: Any) -> Tensor:
        return torch.stack(
            [
                self.segmentation.loss(outputs.segmentation, targets.labels),
                self._class_loss(outputs, targets),
            ]
        )

    def _class_loss(self, outputs: Outputs, targets: ClassedLabels) -> Tensor:
        logits = outputs.classes.float()
        if self.options.imbalance == "logit_adjustment":
            logits = logits + self.prior.to(logits).clamp(min=1e-6).log()
        loss = class_cross_entropy(
            logits,
            targets.classes,
            weights=self.class_weights,
            label_smoothing=self.options.label_smoothing,
            focal_gamma=self.options.focal_gamma
            if self.options.loss == "focal"
            else 0.0,
        )
        view = self.in_view(outputs, targets)
        return (loss * view).sum() / (targets.classes >= 0).sum().clamp(
            min=1
        ) + outputs.classes.sum() * 0

    def in_view(self, outputs: Outputs, targets: ClassedLabels) -> Tensor:
        """How much a patch says about the class, `(b,)`: 1 with a quarter of the lesion
        in view, 0 with none.

        Without a reference mask: whether the network sees a lesion there.
        """
        lesion = region_targets(targets.labels, self.masks[:1])[:, 0].flatten(1).sum(1)
        share = (lesion / (ENOUGH * targets.lesion.clamp(min=1))).clamp(max=1)
        finest = (
            outputs.segmentation[0]
            if isinstance(outputs.segmentation, list)
            else outputs.segmentation
        )
        predicted = self.predicted_lesion(finest.detach()).flatten(1).any(1)
        return torch.where(targets.lesion < 0, predicted.float(), share.float())

    def predicted_lesion(self, logits: Tensor) -> Tensor:
        """Where lesion is predicted, bool `(b, z, y, x)`."""
        labels = self.segmentation.labels
        found = logits.max(1).indices if labels.exclusive else None
        if found is not None:
            return region_targets(found, self.masks[:1])[:, 0]
        return (logits > 0).any(1)

    def count(self, outputs: Outputs, targets: ClassedLabels) -> Tensor:
        """Counts of the segmentation, and of the classes those that `score` takes
        apart.

        Confusion (rows: truth), sums of the logits and of their squares, sum of the
        losses, number of cases.
        """
        counts = self.segmentation.count(outputs.segmentation, targets.labels)  # type: ignore[arg-type]
        number = len(self.classes)
        judged = (targets.classes >= 0) & (self.in_view(outputs, targets) > 0)
        truth, logits = targets.classes[judged], outputs.classes[judged].to(counts)
        confusion = torch.bincount(
            truth * number + logits.argmax(1), minlength=number * number
        ).to(counts)
        loss = (
            class_cross_entropy(logits.float(), truth).sum()
            if len(truth)
            else logits.new_zeros(())
        )
        tail = torch.stack([loss.to(counts), counts.new_tensor(float(len(truth)))])
        return torch.cat(
            [counts.flatten(), confusion, logits.sum(0), logits.square().sum(0), tail]
        )

    def score(self, counts: Tensor) -> dict[str, float]:
        """Dice of the targets, figures of the classes, and their joint score: the mean
        of Dice and macro-F1.
        """
        number, targets = len(self.classes), len(self.segmentation.labels.targets)
        sizes = [3 * targets, number * number, number, number, 2]
        segmentation, confusion, logits, squares, tail = counts.cpu().split(sizes)
        figures = self.segmentation.score(segmentation.reshape(targets, 3))
        loss, judged = tail.tolist()
        if not judged:
            return figures
        table = confusion.reshape(number, number).numpy()
        found = self.monitor.figures(
            table, logits.numpy(), judged, logit_squares=squares.numpy()
        )
        dice = figures["validation_dice"]
        both = [
            value for value in (dice, found["validation_macro_f1"]) if value == value
        ]
        return {
            **figures,
            **found,
            "class_loss": loss / judged,
            "validation_score": sum(both) / len(both),
        }

    def figures(self) -> dict[str, float]:
        """Weights of the losses."""
        learnt = {} if self.adaptive is None else self.adaptive.term_weights()
        return {
            **self.segmentation.figures(),
            "class_weight": self.weight,
            **{f"loss_weight/{name}": weight for name, weight in learnt.items()},
        }

    def remarks(self, figures: dict[str, float]) -> list[str]:
        """Warnings of the monitor, once the class is learnt; they are about the head,
        which may not be what answers.
        """
        found = self.monitor.warnings(figures) if self.weight > 0 else []
        rest = (
            ""
            if self.options.classifier == "head"
            else " (the head; a classifier on pooled features will answer)"
        )
        return [line + rest for line in found]


class MultitaskTask(SegmentationTask):
    """What training needs to know about a class beside the segmentation."""

    def dataset(self, dataset: Dataset) -> Dataset:
        """Cases with a label map, a class, or both; raises `DataError` where there are
        no classes to tell apart.
        """
        if len(dataset.classes) < 2:
            raise DataError(
                f"{dataset.root}: {len(dataset.classes)} classes found, a multitask model needs two; name them with "
                "--classes CSV (columns case,class), or in the dataset"
            )
        return dataset.model_copy(update={"task": "multitask"})

    def network(
        self, prepared: Prepared, recipe: Recipe, names: Sequence[str]
    ) -> MultitaskNetwork:
        """The segmentation network with a class head."""
        plan, options = prepared.plan, recipe.classification
        masks = LesionMasks.of(
            plan.labels, lesion_indices(plan.labels, options.lesion), plan.spacing
        )
        return add_class_head(
            super().network(prepared, recipe, names),
            plan.topology,
            name=plan.network,
            channels=len(plan.inputs),
            classes=len(prepared.dataset.classes),
            masks=masks,
            width=options.width,
            dropout=options.dropout,
            encoder_gradient=0.0
            if options.mode == "frozen"
            else options.encoder_gradient,
        )

    def objective(
        self, prepared: Prepared, recipe: Recipe, names: Sequence[str]
    ) -> Objective:
        """Loss and score for training on the cases `names`; nothing is counted on other
        cases.
        """
        voxels = prepared.store.mean_voxels(names, len(prepared.plan.labels.values))
        return MultitaskObjective.of(
            prepared.plan, recipe, dataset=prepared.dataset, names=names, voxels=voxels
        )

    def source(
        self,
        prepared: Prepared,
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> Classed:
        """Batches with classes, part of each centred on lesions."""
        source = batch_source(prepared, recipe, names, training=training)
        labels = prepared.plan.labels
        sampling = lesion_sampling(prepared.dataset, names, labels, recipe)
        classes = case_classes(
            prepared.dataset, prepared.store, names, sampling.indices
        )
        sampler = replace(source.sampler, lesions=sampling)
        return Classed(replace(source, sampler=sampler), classes)


def class_counts(dataset: Dataset, names: Sequence[str]) -> Counter[str]:
    """Cases of each class among `names`; raises `DataError` where fewer than two
    classes are left to tell apart.
    """
    wanted = set(names)
    counts = Counter(
        case.class_name
        for case in dataset.cases
        if case.name in wanted and case.class_name is not None
    )
    missing = [name for name in dataset.classes if not counts[name]]
    if len(dataset.classes) < 2 or missing:
        raise DataError(
            f"{dataset.root}: the training cases of this fold have no case of class {', '.join(missing) or '(none given)'}; "
            "a classifier needs two classes with cases each, see 'trivox check'"
        )
    return Counter({str(name): count for name, count in counts.items()})


def lesion_sampling(
    dataset: Dataset, names: Sequence[str], labels: LabelScheme, recipe: Recipe
) -> LesionSampling:
    """Patches centred on lesions of the cases `names` that have a class; balanced: each
    class equally often.
    """
    options, wanted = recipe.classification, set(names)
    known = [
        case
        for case in dataset.cases
        if case.name in wanted and case.class_name is not None
    ]
    if options.imbalance == "balanced_sampler":
        groups = [
            tuple(case.name for case in known if case.class_name == name)
            for name in dataset.classes
        ]
    else:
        groups = [tuple(case.name for case in known)]
    return LesionSampling(
        lesion_indices(labels, options.lesion),
        options.lesion_fraction,
        tuple(group for group in groups if group),
    )


def case_classes(
    dataset: Dataset, store: Store, names: Sequence[str], lesion: Sequence[int]
) -> CaseClasses:
    """Class and lesion voxels of the cases `names`; a case without a mask has -1
    voxels, not none.
    """
    cases: Mapping[str, Any] = {case.name: case for case in dataset.cases}
    index = {
        name: dataset.classes.index(cases[name].class_name)
        for name in names
        if cases[name].class_name is not None
    }
    voxels = {}
    for name in names:
        present = store.facts(name)["present"]
        voxels[name] = (
            sum(present.get(str(i), 0) for i in lesion)
            if cases[name].label is not None
            else -1
        )
    return CaseClasses(index, voxels)
