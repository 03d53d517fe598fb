"""The loss of a recipe: terms by name, and how they add up.

Each takes logits `(b, c, z, y, x)` and label indices `(b, z, y, x)`; negative indices
are ignored.

Classes are exclusive (softmax) or regions (sigmoid, by a membership table), as
`targets` says; half precision is computed in fp32. `dice_cross_entropy` is the sum that
most recipes ask for, in one pass.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from trivox.config.options import LossName, LossOptions
from trivox.learning.losses.combined import (
    AdaptiveLoss,
    CombinedLoss,
    DeepSupervisionLoss,
    Loss,
)
from trivox.learning.losses.distance import boundary, hausdorff
from trivox.learning.losses.entropy import cross_entropy, focal, top_k_cross_entropy
from trivox.learning.losses.fused import dice_binary_cross_entropy, dice_cross_entropy
from trivox.learning.losses.lovasz import lovasz
from trivox.learning.losses.overlap import (
    dice,
    focal_tversky,
    generalised_dice,
    tversky,
)
from trivox.learning.losses.skeleton import cl_dice


@dataclass(frozen=True, eq=False)
class LossSetup:
    """What the losses of a run share.

    regions: membership `(region, index)`, None for exclusive classes; batch: pool
    overlap over the batch; class_weights: `(c,)` for cross-entropy and focal loss;
    target_weights: `(target,)` for Dice and Tversky losses.
    """

    options: LossOptions = field(default_factory=LossOptions)
    regions: Tensor | None = None
    batch: bool = False
    class_weights: Tensor | None = None
    target_weights: Tensor | None = None


def _overlap(loss: Callable[..., Tensor], setup: LossSetup, **constants: float) -> Loss:
    return partial(loss, regions=setup.regions, batch=setup.batch, **constants)


def _entropy(loss: Callable[..., Tensor], setup: LossSetup, **constants: float) -> Loss:
    return partial(
        loss,
        regions=setup.regions,
        class_weights=setup.class_weights,
        label_smoothing=setup.options.label_smoothing,
        **constants,
    )


def _tversky(loss: Callable[..., Tensor], setup: LossSetup, **constants: float) -> Loss:
    weighted = partial(loss, weights=setup.target_weights)
    return _overlap(
        weighted,
        setup,
        alpha=setup.options.tversky_alpha,
        beta=setup.options.tversky_beta,
        **constants,
    )


LOSSES: dict[LossName, Callable[[LossSetup], Loss]] = {
    "dice": lambda s: _overlap(partial(dice, weights=s.target_weights), s),
    "generalised_dice": lambda s: _overlap(generalised_dice, s),
    "cross_entropy": lambda s: _entropy(cross_entropy, s),
    "top_k_cross_entropy": lambda s: _entropy(
        top_k_cross_entropy, s, share=s.options.top_k
    ),
    "focal": lambda s: _entropy(focal, s, gamma=s.options.focal_gamma),
    "tversky": lambda s: _tversky(tversky, s),
    "focal_tversky": lambda s: _tversky(
        focal_tversky, s, gamma=s.options.focal_tversky_gamma
    ),
    "lovasz": lambda s: _overlap(lovasz, s),
    "cl_dice": lambda s: _overlap(cl_dice, s, iterations=s.options.cl_dice_iterations),
    "boundary": lambda s: partial(boundary, regions=s.regions),
    "hausdorff": lambda s: partial(
        hausdorff, power=s.options.hausdorff_power, regions=s.regions
    ),
}


ON_HOST: tuple[LossName, ...] = ("boundary", "hausdorff")
"""Losses that are computed on the CPU in part."""


def make_loss(weights: Mapping[LossName, float], setup: LossSetup) -> nn.Module:
    """The loss of a recipe at every scale of deep supervision: terms by name with their
    weights (0: left out).
    """
    used: dict[str, float] = {}
    losses: dict[str, Loss] = {}
    for name, weight in weights.items():
        if weight > 0:
            used[name] = weight
            losses[name] = LOSSES[name](setup)
    combined = CombinedLoss(losses, used)
    if setup.options.adaptive != "none":
        terms = DeepSupervisionLoss(combined.terms)
        return AdaptiveLoss(terms, used, rule=setup.options.adaptive)
    weighted = setup.class_weights is not None or setup.target_weights is not None
    plain = not weighted and not setup.options.label_smoothing
    if plain and set(used) == {"dice", "cross_entropy"}:
        return DeepSupervisionLoss(_fused(used["dice"], used["cross_entropy"], setup))
    return DeepSupervisionLoss(combined)


def _fused(dice_weight: float, ce_weight: float, setup: LossSetup) -> Loss:
    if setup.regions is None:
        return partial(
            dice_cross_entropy,
            dice_weight=dice_weight,
            ce_weight=ce_weight,
            batch=setup.batch,
        )
    return partial(
        dice_binary_cross_entropy,
        regions=setup.regions,
        dice_weight=dice_weight,
        ce_weight=ce_weight,
        batch=setup.batch,
    )
