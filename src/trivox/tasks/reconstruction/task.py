"""Reconstruction: the volume that one to eight X-rays show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from trivox.config.recipe import Recipe
from trivox.config.volumes import ReconstructionOptions
from trivox.inference.reconstructor import reconstruction_network
from trivox.learning.losses.adversarial import Critic, PsnrBudget, ramp
from trivox.learning.losses.reconstruction import ReconstructionCriterion, at_size_of
from trivox.learning.losses.similarity import psnr, ssim3d
from trivox.learning.objective import Objective
from trivox.learning.runtime import Runtime, rank, world_size
from trivox.preparation.exam_batches import (
    ExamSource,
    VolumeTargets,
    to_window,
)
from trivox.tasks.console import Console
from trivox.tasks.reconstruction.exams import PreparedExams, prepare_xrays
from trivox.tasks.reconstruction.validation import finish_volumes
from trivox.tasks.task import RunRequest, Task

MOST_VIEWS = 8


@dataclass(eq=False)
class ReconstructionObjective(Objective):
    """The recipe's loss; validation PSNR and SSIM in the HU window, for each number of
    views and their mean.

    With `options.adversarial` a critic learns beside the network in the last part of
    training, within a budget of PSNR.
    """

    criterion: ReconstructionCriterion
    options: ReconstructionOptions
    critic: Critic | None = field(default=None, init=False)
    adversarial_weight: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.budget = PsnrBudget(self.options.psnr_budget)
        self._kept: dict[str, Any] | None = None

    def begin(self, spent: float, epoch: int) -> None:
        """The weight of the adversarial loss."""
        wanted = ramp(
            spent, share=self.options.adversarial_share, weight=self.options.adversarial
        )
        self.adversarial_weight = self.budget.allowed(wanted)

    def loss(self, outputs: Any, targets: VolumeTargets) -> Tensor:
        """Sum of the parts, weighted; in training the critic learns from the same
        volumes.
        """
        value: Tensor = self.criterion.to(targets.volume.device)(
            outputs, targets.volume, targets.xrays
        )
        if not self.adversarial_weight or not torch.is_grad_enabled():
            return value
        self.critic = self.critic or self._new_critic(targets.volume.device)
        fake = outputs[0] if isinstance(outputs, list) else outputs
        real = at_size_of(fake, targets.volume)
        self.critic.learn(real, fake)
        return value + self.adversarial_weight * self.critic.judge(fake, real)

    def figures(self) -> dict[str, float]:
        """The weight of the adversarial loss, where there is one."""
        return (
            {"adversarial_weight": self.adversarial_weight}
            if self.options.adversarial
            else {}
        )

    def remarks(self, figures: dict[str, float]) -> list[str]:
        """A line once the adversarial part has cost too much."""
        if not self.options.adversarial or "validation_psnr" not in figures:
            return []
        found = self.budget.check(
            figures["validation_psnr"], running=self.adversarial_weight > 0
        )
        return [] if found is None else [found]

    def state(self) -> dict[str, Any]:
        """Critic and budget."""
        return {
            "budget": self.budget.state(),
            "critic": self._kept if self.critic is None else self.critic.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """See `state`."""
        if "budget" in state:
            self.budget.restore(state["budget"])
        self._kept = state.get(
            "critic"
        )  # where it computes is known with the first volumes

    def _new_critic(self, device: torch.device) -> Critic:
        critic = Critic(device=device)
        if self._kept is not None:
            critic.load_state_dict(self._kept)
        return critic

    def count(self, outputs: Any, targets: VolumeTargets) -> Tensor:
        """For each number of views `(9, 3)`: volumes, and their PSNR and SSIM added up."""
        finest: Tensor = (outputs[0] if isinstance(outputs, list) else outputs).float()
        if (
            finest.shape != targets.volume.shape
        ):  # while training grows: judged on the full grid all the same
            finest = interpolate(finest, targets.volume.shape[2:], mode="trilinear")
        found: Tensor = finest.new_zeros(
            MOST_VIEWS + 1,
            3,
            dtype=torch.float64 if finest.device.type != "mps" else torch.float32,
        )
        parts = [
            torch.ones(len(finest)),
            psnr(finest, targets.volume),
            ssim3d(finest, targets.volume),
        ]
        found[targets.xrays.views] = torch.stack(
            [part.to(found).sum() for part in parts]
        )
        return found

    def score(self, counts: Tensor) -> dict[str, float]:
        """PSNR in dB over the whole volume and the HU window (clipped to it), 3-D SSIM;
        means over numbers of views.
        """
        figures: dict[str, float] = {}
        for views, (volumes, decibels, similarity) in enumerate(counts.tolist()):
            if volumes:
                figures[f"validation_psnr/{views} views"] = decibels / volumes
                figures[f"validation_ssim/{views} views"] = similarity / volumes
        means = {
            what: [
                value
                for name, value in figures.items()
                if name.startswith(f"validation_{what}/")
            ]
            for what in ("psnr", "ssim")
        }
        figures |= {
            f"validation_{what}": sum(values) / max(1, len(values))
            for what, values in means.items()
        }
        return {**figures, "validation_score": figures["validation_psnr"]}


class ReconstructionTask(Task[PreparedExams]):
    """What training needs to know about X-rays and volumes."""

    recipe = "xray2ct"

    def prepare(
        self, request: RunRequest, recipe: Recipe, runtime: Runtime, console: Console
    ) -> PreparedExams:
        """Check, plan, bring CTs and views to the plan's grids."""
        return prepare_xrays(
            request.dataset,
            request.out,
            recipe,
            plan_file=request.plan,
            prepared=request.prepared,
            console=console,
        )

    def network(
        self, prepared: PreparedExams, recipe: Recipe, names: Sequence[str]
    ) -> nn.Module:
        """A network that knows the mean of the training volumes."""
        network = reconstruction_network(prepared.plan)
        means = (
            to_window(prepared.volume(name), prepared.plan.window).double()
            for name in names
        )
        network.set_mean(
            (
                sum(means, start=torch.zeros(prepared.plan.shape, dtype=torch.float64))
                / len(names)
            ).float()
        )
        return network

    def objective(
        self, prepared: PreparedExams, recipe: Recipe, names: Sequence[str]
    ) -> Objective:
        """Loss and score; nothing in it depends on the cases."""
        plan = prepared.plan
        criterion = ReconstructionCriterion(
            recipe.reconstruction.loss,
            window=plan.window,
            water_per_mm=plan.water_per_mm,
            grid=plan.grid,
        )
        return ReconstructionObjective(criterion, recipe.reconstruction)

    def source(
        self,
        prepared: PreparedExams,
        recipe: Recipe,
        names: Sequence[str],
        *,
        training: bool,
    ) -> ExamSource:
        """Batches of exams; each rank takes every `world_size`-th sample of the global
        batch.
        """
        ranks = world_size()
        batch = -(-(recipe.batch_size or prepared.plan.batch_size) // ranks) * ranks
        return ExamSource(
            store=prepared.store,
            names=names,
            plan=prepared.plan,
            options=recipe.reconstruction,
            seed=recipe.seed,
            positions=range(rank(), batch, ranks),
            batch_size=batch,
            training=training,
        )

    def finish(
        self,
        request: RunRequest,
        recipe: Recipe,
        prepared: PreparedExams,
        folders: Mapping[int, Path],
        console: Console,
    ) -> dict[str, Any]:
        """Bundle, validation beside the classical ladder, report."""

        return finish_volumes(request, recipe, prepared, folders, console)
