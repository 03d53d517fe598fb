"""A critic that learns to tell reconstructed volumes from acquired ones, and the budget
of PSNR that it may cost.

3-D PatchGAN (Isola et al. 2017) with spectral normalisation (Miyato et al. 2018), hinge
loss (Lim and Ye 2017) and feature matching (Salimans et al. 2016). What it adds looks
like texture and is not knowledge about the patient: published GANs score lower in PSNR
than the same networks without; hence the budget, and the weight of 0 by default.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trivox.errors import FormatError
from trivox.learning.losses.targets import absolute_difference, full_precision
from trivox.learning.runtime import sum_over_ranks, world_size

WIDTHS = (16, 32, 64)
LEARNING_RATE = 2e-4
MATCHING = 10.0
"""Weight of feature matching beside the critic's verdict (pix2pixHD, Wang et al. 2018).
"""


class PatchCritic(nn.Module):
    """A verdict for each patch of a volume, above 0 for acquired; and the channels on
    the way to it.

    A patch is 22 voxels wide with three widths; volumes of any size from 8 voxels on.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS) -> None:
        super().__init__()
        ins = (1, *widths[:-1])
        self.stages = nn.ModuleList(
            spectral_norm(nn.Conv3d(before, after, 4, stride=2, padding=1))
            for before, after in zip(ins, widths, strict=True)
        )
        self.verdict = spectral_norm(nn.Conv3d(widths[-1], 1, 1))

    def forward(self, volumes: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Verdicts `(b, 1, z / 8, y / 8, x / 8)` of `(b, 1, z, y, x)`, and the channels
        of each stage.
        """
        channels = volumes
        features: list[Tensor] = []
        for stage in self.stages:
            channels = F.leaky_relu(stage(channels), 0.2)
            features.append(channels)
        return self.verdict(channels), features


class CriticState(TypedDict):
    """State of the network and of its optimiser, as torch gives them."""

    network: Mapping[str, Any]
    optimizer: dict[str, Any]


class Critic:
    """A critic with an optimiser of its own; computes in fp32.

    Ranks begin alike and stay so: gradients are averaged.
    """

    def __init__(
        self,
        *,
        device: torch.device | str = "cpu",
        learning_rate: float = LEARNING_RATE,
    ) -> None:
        where = torch.device(device)
        seeded = [where] if where.type == "cuda" else []
        with torch.random.fork_rng(devices=seeded):
            torch.manual_seed(0)
            self.network = PatchCritic().to(device)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=learning_rate, betas=(0.5, 0.999)
        )

    def learn(self, real: Tensor, fake: Tensor) -> Tensor:
        """One step towards telling `real` from `fake`, both `(b, 1, z, y, x)`; returns
        its hinge loss, a scalar where they lie (2: knows nothing).

        No gradient reaches the network that made `fake`.
        """
        self.network.train().requires_grad_(True)
        with _plain(real):
            of_real, _ = self._verdicts(real.detach())
            of_fake, _ = self._verdicts(fake.detach())
            loss = _hinge(of_real) + _hinge(-of_fake)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        self.optimizer.step()
        return loss.detach()

    def judge(self, fake: Tensor, real: Tensor) -> Tensor:
        """What the reconstructed `fake` costs its network: minus the verdict, plus 10 x
        the mean feature difference.

        The critic itself neither learns nor keeps gradients here.
        """
        # spectral norms stand still in evaluation, too
        self.network.eval().requires_grad_(False)
        with _plain(fake):
            verdict, features = self._verdicts(fake)
            with torch.no_grad():
                _, wanted = self._verdicts(real)
            matching = [
                absolute_difference(of_fake, of_real)
                for of_fake, of_real in zip(features, wanted, strict=True)
            ]
            return -verdict.mean() + MATCHING * torch.stack(matching).mean()

    def state_dict(self) -> CriticState:
        """Weights and optimiser, for checkpoints."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: CriticState) -> None:
        """Continue from `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _verdicts(self, volumes: Tensor) -> tuple[Tensor, list[Tensor]]:
        verdicts: tuple[Tensor, list[Tensor]] = self.network(full_precision(volumes))
        return verdicts

    def _average_gradients(self) -> None:
        if world_size() > 1:
            for parameter in self.network.parameters():
                if parameter.grad is not None:
                    parameter.grad = sum_over_ranks(parameter.grad) / world_size()


def ramp(spent: float, *, share: float, weight: float) -> float:
    """Weight of the adversarial loss when `spent` of training is over: 0 until its last
    `share`, then rising linearly.

    It stands at `weight` from the middle of that share on.
    """
    start = 1 - share
    if share <= 0 or spent < start:
        return 0.0
    return weight * min(1.0, (spent - start) / (share / 2))


class PsnrBudget:
    """Ends the adversarial part once it has cost more validation PSNR than allowed.

    limit_db: the largest drop below the PSNR before the stage.
    """

    def __init__(self, limit_db: float) -> None:
        self.limit_db = limit_db
        self.before_db: float | None = None
        self.exceeded = False

    def check(self, psnr_db: float, *, running: bool) -> str | None:
        """Take note of a validation; `running`: whether the critic had a say in the
        epoch before it.

        Returns a sentence for the log in the moment that the budget is exceeded, else
        None.
        """
        if not running:
            self.before_db = psnr_db
            return None
        drop = 0.0 if self.before_db is None else self.before_db - psnr_db
        if self.exceeded or drop <= self.limit_db:
            return None
        self.exceeded = True
        return (
            f"adversarial loss switched off: validation PSNR fell by {drop:.2f} dB to "
            f"{psnr_db:.2f} dB, the budget is {self.limit_db:g} dB; try a smaller "
            "reconstruction.adversarial"
        )

    def allowed(self, weight: float) -> float:
        """The weight, or 0 once the budget is exceeded."""
        return 0.0 if self.exceeded else weight

    def state(self) -> dict[str, float | bool | None]:
        """For JSON."""
        return {"before_db": self.before_db, "exceeded": self.exceeded}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`; raises `FormatError` for anything else."""
        before = state.get("before_db")
        exceeded = state.get("exceeded")
        measured = before is None or isinstance(before, int | float)
        if not measured or not isinstance(exceeded, bool):
            raise FormatError(
                f"{dict(state)} is no state of a PSNR budget; start the run anew"
            )
        self.before_db = before
        self.exceeded = exceeded


def _hinge(verdicts: Tensor) -> Tensor:
    """0 where all verdicts are above 1."""
    return F.relu(1 - verdicts).mean()


def _plain(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)
