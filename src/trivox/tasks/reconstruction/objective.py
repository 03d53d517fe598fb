"""What is learnt of volumes: the parts of the loss, an adversarial stage, PSNR and SSIM."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from trivox.config.volumes import ReconstructionOptions
from trivox.learning.losses.adversarial import Critic, CriticState, PsnrBudget, ramp
from trivox.learning.losses.similarity import psnr, ssim3d
from trivox.learning.losses.volumes import VolumeCriterion, at_size_of
from trivox.learning.objective import Objective
from trivox.learning.runtime import widest_type
from trivox.preparation.exam_batches import VolumeTargets

MOST_VIEWS = 8


@dataclass(eq=False)
class ReconstructionObjective(Objective):
    """The recipe's loss; validation PSNR and SSIM in the HU window, for each number of
    views and their mean.

    With `options.adversarial` a critic learns beside the network in the last part of
    training, within a budget of PSNR.
    """

    headlines: ClassVar[tuple[str, ...]] = ("validation_score",)

    criterion: VolumeCriterion
    options: ReconstructionOptions
    critic: Critic | None = field(default=None, init=False)
    adversarial_weight: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.budget = PsnrBudget(self.options.psnr_budget)
        self._placed: torch.device | None = None
        self._critic_state: CriticState | None = None
        """Of a checkpoint, until there is a critic to restore."""

    @property
    def leaves_parts_out(self) -> bool:
        """Without any view nothing is lifted."""
        return 0 in self.options.view_counts

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
        self._place(targets.volume.device)
        value: Tensor = self.criterion(outputs, targets.volume, targets.xrays)
        if not self.adversarial_weight or not torch.is_grad_enabled():
            return value
        self.critic = self.critic or self._new_critic(targets.volume.device)
        fake = outputs[0] if isinstance(outputs, list) else outputs
        real = at_size_of(fake, targets.volume)
        self.critic.learn(real, fake)
        return value + self.adversarial_weight * self.critic.judge(fake, real)

    def _place(self, device: torch.device) -> None:
        """Bring the loss to a device once: it has an encoder of its own."""
        if self._placed != device:
            self.criterion.to(device)
            self._placed = device

    def figures(self) -> dict[str, float]:
        """The weight of the adversarial loss, where there is one."""
        if not self.options.adversarial:
            return {}
        return {"adversarial_weight": self.adversarial_weight}

    def remarks(self, figures: dict[str, float]) -> list[str]:
        """A line once the adversarial part has cost too much."""
        if not self.options.adversarial or "validation_psnr" not in figures:
            return []
        running = self.adversarial_weight > 0
        remark = self.budget.check(figures["validation_psnr"], running=running)
        return [] if remark is None else [remark]

    def state(self) -> Mapping[str, object]:
        """Critic and budget."""
        critic = self._critic_state
        if self.critic is not None:
            critic = self.critic.state_dict()
        return {"budget": self.budget.state(), "critic": critic}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `state`."""
        if "budget" in state:
            self.budget.restore(state["budget"])
        # the critic itself is built with the first volumes, on their device
        self._critic_state = state.get("critic")

    def _new_critic(self, device: torch.device) -> Critic:
        critic = Critic(device=device)
        if self._critic_state is not None:
            critic.load_state_dict(self._critic_state)
        return critic

    def count(self, outputs: Any, targets: VolumeTargets) -> Tensor:
        """For each number of views `(9, 3)`: volumes, and their PSNR and SSIM added up."""
        finest: Tensor = (outputs[0] if isinstance(outputs, list) else outputs).float()
        if finest.shape != targets.volume.shape:
            # while training grows: judged on the full grid all the same
            finest = interpolate(finest, targets.volume.shape[2:], mode="trilinear")
        wide = widest_type(finest.device)
        sums: Tensor = finest.new_zeros(MOST_VIEWS + 1, 3, dtype=wide)
        parts = [
            finest.new_ones(len(finest)),
            psnr(finest, targets.volume),
            ssim3d(finest, targets.volume),
        ]
        sums[targets.xrays.views] = torch.stack([part.to(sums).sum() for part in parts])
        return sums

    def summary(self, figures: Mapping[str, float]) -> str:
        """The mean PSNR and SSIM."""
        decibels = figures["validation_psnr"]
        return f"PSNR {decibels:.2f} dB SSIM {figures['validation_ssim']:.3f}"

    def score(self, counts: Tensor) -> dict[str, float]:
        """PSNR in dB over the whole volume and the HU window (clipped to it), 3-D SSIM;
        means over numbers of views.
        """
        figures: dict[str, float] = {}
        for views, (volumes, decibels, similarity) in enumerate(counts.tolist()):
            if volumes:
                figures[f"validation_psnr/{views} views"] = decibels / volumes
                figures[f"validation_ssim/{views} views"] = similarity / volumes
        for what in ("psnr", "ssim"):
            name = f"validation_{what}"
            values = [v for key, v in figures.items() if key.startswith(f"{name}/")]
            figures[name] = sum(values) / max(1, len(values))
        return {**figures, "validation_score": figures["validation_psnr"]}
