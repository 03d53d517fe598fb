"""Freezing the encoder for a share of training: pretrained features wait until the
fresh decoder has found its feet.
"""

import math

from torch import nn

from trivox.config.recipe import Recipe
from trivox.errors import RecipeError


class Freezing:
    """Which encoder stages learn, as a function of the share of the budget that is
    spent: a resumed run asks again.

    Frozen parameters stay in the optimizer without gradients, so neither decay nor
    momentum moves them. Instance and group norms have no running statistics that could
    drift. Raises `RecipeError` for a network without encoder stages.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.share = recipe.freeze_encoder
        self.staged = recipe.unfreezing == "staged"
        self.stages: list[nn.Module] = []
        self.frozen = 0
        if self.share > 0:
            stages = getattr(network, "encoder_stages", None)
            if stages is None:
                raise RecipeError(
                    f"network '{recipe.network}' has no encoder to freeze; "
                    "leave freeze_encoder at 0"
                )
            self.stages = stages()

    def frozen_at(self, spent: float) -> int:
        """Number of frozen stages, the finest ones; staged: the deepest thaws first,
        all after equal times.
        """
        if self.share >= 1 and not self.staged:
            return len(self.stages)
        if spent >= self.share:
            return 0
        if not self.staged:
            return len(self.stages)
        return len(self.stages) - math.floor(spent / self.share * len(self.stages))

    def apply(self, spent: float) -> bool:
        """Freeze and thaw as due; returns whether anything changed."""
        wanted = self.frozen_at(spent)
        if wanted == self.frozen:
            return False
        self.frozen = wanted
        for number, stage in enumerate(self.stages):
            for parameter in stage.parameters():
                parameter.requires_grad_(number >= wanted)
        return True
