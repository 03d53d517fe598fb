"""What is learnt of label maps where trained networks answer beside the labels: they look
at the very patch that the student sees.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trivox.config.recipe import Recipe
from trivox.inference.members import load_network, segmenter_of
from trivox.learning.losses.distillation import (
    soft_answers,
    soft_divergence,
    soft_mismatch,
)
from trivox.learning.microbatch import in_parts
from trivox.learning.objective import Objective
from trivox.networks.class_head import Outputs
from trivox.tasks.labels.prepared import PreparedImages
from trivox.tasks.labels.teachers import Voter, read_teachers, require_same_grid, voters


@dataclass(frozen=True, eq=False)
class TaughtLabels:
    """What a batch holds, with the teachers' probabilities `(b, c, z, y, x)`."""

    labels: Any
    answers: Tensor


@dataclass(frozen=True, eq=False)
class Teacher:
    """Trained networks whose mean probabilities are learnt.

    exclusive: whether their outputs are classes of which one holds, or regions.
    """

    networks: Sequence[nn.Module]
    temperature: float
    exclusive: bool

    @classmethod
    def of(cls, chosen: Sequence[Voter], temperature: float) -> "Teacher":
        """With the weights of networks that were chosen."""
        networks = []
        for voter in chosen:
            (file,) = voter.bundle.checked([voter.weights])
            network = load_network(voter.bundle.description, file)
            networks.append(segmenter_of(network).eval().requires_grad_(False))
        labels = chosen[0].bundle.description.plan.labels
        return cls(networks, temperature, labels.exclusive)

    @torch.no_grad()
    def answers(self, images: Tensor) -> Tensor:
        """Softened probabilities `(b, c, z, y, x)` for images `(b, c, z, y, x)`."""
        for network in self.networks:
            network.to(images.device)
        return in_parts(self._answers, images, images.device)  # type: ignore[no-any-return]

    def _answers(self, images: Tensor) -> Tensor:
        logits = (network(images) for network in self.networks)
        return soft_answers(
            logits, temperature=self.temperature, exclusive=self.exclusive
        )

    def distance(self, logits: Tensor, answers: Tensor) -> Tensor:
        """How far a student's logits are from answers, both `(b, c, z, y, x)`: voxel by
        voxel, and by the overlap of each target.
        """
        divergence = soft_divergence(
            logits, answers, temperature=self.temperature, exclusive=self.exclusive
        )
        mismatch = soft_mismatch(
            logits, answers, temperature=self.temperature, exclusive=self.exclusive
        )
        return divergence + mismatch


@dataclass(frozen=True, eq=False)
class TaughtObjective(Objective):
    """What `learnt` learns from labels, and beside it the answers of a teacher, which
    have `weight` and the labels the rest; of deep supervision the finest output alone.

    Validation goes by the labels.
    """

    learnt: Objective
    teacher: Teacher
    weight: float

    @property
    def module(self) -> nn.Module | None:
        """See `learnt`."""
        return self.learnt.module

    @property
    def leaves_parts_out(self) -> bool:
        """See `learnt`."""
        return self.learnt.leaves_parts_out

    def targets(self, images: Any, targets: Any) -> TaughtLabels:
        """The labels, and what the teacher answers."""
        return TaughtLabels(targets, self.teacher.answers(images))

    def inputs(self, images: Any, targets: TaughtLabels) -> tuple[Any, ...]:
        """See `learnt`."""
        return self.learnt.inputs(images, targets.labels)

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """The weighted sum in training; that of the labels in validation."""
        if not isinstance(targets, TaughtLabels):
            return self.learnt.loss(outputs, targets)
        by_labels = self.learnt.loss(outputs, targets.labels)
        by_teacher = self.teacher.distance(_finest(outputs), targets.answers)
        return (1 - self.weight) * by_labels + self.weight * by_teacher

    def count(self, outputs: Any, targets: Any) -> Tensor:
        """See `learnt`."""
        return self.learnt.count(outputs, targets)

    def score(self, counts: Tensor) -> dict[str, float]:
        """See `learnt`."""
        return self.learnt.score(counts)

    def headline(self, figures: Mapping[str, float]) -> str | None:
        """See `learnt`."""
        return self.learnt.headline(figures)

    def summary(self, figures: Mapping[str, float]) -> str:
        """See `learnt`."""
        return self.learnt.summary(figures)

    def begin(self, spent: float, epoch: int) -> None:
        """See `learnt`."""
        self.learnt.begin(spent, epoch)

    def figures(self) -> dict[str, float]:
        """See `learnt`."""
        return self.learnt.figures()

    def state(self) -> Mapping[str, object]:
        """See `learnt`; a teacher does not change."""
        return self.learnt.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `state`."""
        self.learnt.restore(state)

    def remarks(self, figures: dict[str, float]) -> list[str]:
        """See `learnt`."""
        return self.learnt.remarks(figures)


def _finest(outputs: Any) -> Tensor:
    """The logits at full resolution."""
    scales = outputs.segmentation if isinstance(outputs, Outputs) else outputs
    finest: Tensor = scales[0] if isinstance(scales, list) else scales
    return finest


def with_teacher(
    objective: Objective,
    prepared: PreparedImages,
    recipe: Recipe,
    names: Sequence[str],
) -> Objective:
    """The objective of training on the cases `names`, taught as the recipe says; the
    same, if it names no teachers.
    """
    options = recipe.distillation
    if not options.teachers:
        return objective
    bundles = read_teachers(options)
    require_same_grid(prepared.plan, bundles)
    fold = [split.train for split in prepared.splits].index(tuple(names))
    teacher = Teacher.of(voters(bundles, options, fold), options.temperature)
    return TaughtObjective(objective, teacher, options.weight)
