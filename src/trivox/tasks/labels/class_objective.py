"""What is learnt of a class beside label maps: from the lesion, not from whole patches."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from trivox.config.options import ClassificationOptions
from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.lesions import lesion_indices, mask_table
from trivox.errors import DataError
from trivox.learning.case_classifier.monitor import ClassMonitor
from trivox.learning.losses.classes import balanced_weights, class_cross_entropy
from trivox.learning.losses.combined import AdaptiveLoss
from trivox.learning.losses.targets import region_targets, taking_part
from trivox.learning.objective import Objective
from trivox.networks.class_head import Outputs, jitter
from trivox.planning.plan import Plan
from trivox.preparation.classes import ClassedLabels
from trivox.tasks.labels.objective import SegmentationObjective
from trivox.uploads import on_device

ENOUGH = 0.25
"""Share of a lesion that has to be in view for its patch to count fully."""


@dataclass(eq=False)
class MultitaskObjective(Objective):
    """Segmentation loss and class loss.

    The class is judged only where the lesion is in view, and only where it is known.
    """

    headlines: ClassVar[tuple[str, ...]] = ("validation_score", "validation_dice")
    """Dice alone in an epoch that no class could be judged in."""

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
        cases = [counts[name] for name in dataset.classes]
        total = torch.tensor(cases, dtype=torch.float64)
        lesion = lesion_indices(plan.labels, options.lesion)
        objective = cls(
            segmentation=SegmentationObjective.of(plan, recipe, voxels=voxels),
            classes=dataset.classes,
            options=options,
            masks=torch.from_numpy(mask_table(plan.labels, lesion)),
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
        self.segmentation.begin(spent, epoch)
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
        segmentation = self.segmentation.loss(outputs.segmentation, targets.labels)
        return torch.stack([segmentation, self._class_loss(outputs, targets)])

    def _class_loss(self, outputs: Outputs, targets: ClassedLabels) -> Tensor:
        logits = outputs.classes.float()
        if self.options.imbalance == "logit_adjustment":
            logits = logits + on_device(self.prior, logits.device).clamp(min=1e-6).log()
        gamma = self.options.focal_gamma if self.options.loss == "focal" else 0.0
        loss = class_cross_entropy(
            logits,
            targets.classes,
            weights=self.class_weights,
            label_smoothing=self.options.label_smoothing,
            focal_gamma=gamma,
        )
        view = self.in_view(outputs, targets)
        known = (targets.classes >= 0).sum().clamp(min=1)
        idle = taking_part(outputs.classes)
        return (loss * view).sum() / known + idle

    def in_view(self, outputs: Outputs, targets: ClassedLabels) -> Tensor:
        """How much a patch says about the class, `(b,)`: 1 with a quarter of the lesion
        in view, 0 with none.

        Without a reference mask: whether the network sees a lesion there.
        """
        lesion = self._lesion(targets.labels).flatten(1).sum(1)
        share = (lesion / (ENOUGH * targets.lesion.clamp(min=1))).clamp(max=1)
        scales = outputs.segmentation
        finest = scales[0] if isinstance(scales, list) else scales
        predicted = self.predicted_lesion(finest.detach()).flatten(1).any(1)
        return torch.where(targets.lesion < 0, predicted.float(), share.float())

    def predicted_lesion(self, logits: Tensor) -> Tensor:
        """Where lesion is predicted, bool `(b, z, y, x)`."""
        labels = self.segmentation.labels
        if labels.exclusive:
            return self._lesion(logits.max(1).indices)
        return (logits > 0).any(1)

    def _lesion(self, labels: Tensor) -> Tensor:
        """Where label indices are lesion, bool `(b, z, y, x)`."""
        masks = on_device(self.masks, labels.device)
        return region_targets(labels, masks[:1])[:, 0]

    def count(self, outputs: Outputs, targets: ClassedLabels) -> Tensor:
        """Counts of the segmentation and of the classes in one row, which `score` takes
        apart.

        Of the classes: confusion (rows: truth), sums of the logits and of their squares,
        sum of the losses, number of cases.
        """
        finest: Any = outputs.segmentation
        counts = self.segmentation.count(finest, targets.labels)
        number = len(self.classes)
        judged = (targets.classes >= 0) & (self.in_view(outputs, targets) > 0)
        truth = targets.classes[judged]
        logits = outputs.classes[judged].to(counts)
        confusion = torch.bincount(
            truth * number + logits.argmax(1), minlength=number * number
        ).to(counts)
        loss = logits.new_zeros(())
        if len(truth):
            loss = class_cross_entropy(logits.float(), truth).sum()
        tail = torch.stack([loss.to(counts), counts.new_tensor(float(len(truth)))])
        return torch.cat(
            [counts.flatten(), confusion, logits.sum(0), logits.square().sum(0), tail]
        )

    def score(self, counts: Tensor) -> dict[str, float]:
        """Dice of the targets, figures of the classes, and their joint score: the mean
        of Dice and macro-F1.
        """
        number = len(self.classes)
        targets = len(self.segmentation.labels.targets)
        sizes = [3 * targets, number * number, number, number, 2]
        segmentation, confusion, logits, squares, tail = counts.cpu().split(sizes)
        figures = self.segmentation.score(segmentation.reshape(targets, 3))
        loss, judged = tail.tolist()
        if not judged:
            return figures
        table = confusion.reshape(number, number).numpy()
        of_classes = self.monitor.figures(
            table, logits.numpy(), judged, logit_squares=squares.numpy()
        )
        both = (figures["validation_dice"], of_classes["validation_macro_f1"])
        known = [value for value in both if value == value]
        return {
            **figures,
            **of_classes,
            "class_loss": loss / judged,
            "validation_score": sum(known) / len(known),
        }

    def summary(self, figures: Mapping[str, float]) -> str:
        """The mean Dice."""
        return self.segmentation.summary(figures)

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
        warnings = self.monitor.warnings(figures) if self.weight > 0 else []
        note = ""
        if self.options.classifier != "head":
            note = " (the head; a classifier on pooled features will answer)"
        return [*self.segmentation.remarks(figures), *(w + note for w in warnings)]

    def state(self) -> Mapping[str, object]:
        """That of the segmentation."""
        return self.segmentation.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `state`."""
        self.segmentation.restore(state)


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
            f"{dataset.root}: the training cases of this fold have no case of class "
            f"{', '.join(missing) or '(none given)'}; a classifier needs two classes "
            "with cases each, see 'trivox check'"
        )
    return Counter({str(name): count for name, count in counts.items()})
