"""Training from coarse to fine: the grid of a network grows with the share of training
that is spent.
"""

from collections.abc import Sequence

from torch import nn

from trivox.config.recipe import Recipe
from trivox.errors import RecipeError

FADING = 0.1
"""Share of the time on coarse grids in which a new level is faded in (Karras et al.
2018).
"""


class Growing:
    """Which grid a step runs on, as a function of the share of the budget that is
    spent: a resumed run asks again.

    Raises `RecipeError` for a network that cannot run on coarser grids than its own, or
    not on these.
    """

    def __init__(self, networks: Sequence[nn.Module], recipe: Recipe) -> None:
        self.networks = networks
        self.sizes = recipe.reconstruction.growth
        self.share = recipe.reconstruction.growth_share
        self.size: int | None = None
        if self.sizes and not all(hasattr(network, "run_at") for network in networks):
            raise RecipeError(
                f"network '{recipe.network}' has one grid; "
                "leave reconstruction.growth out"
            )
        for network in networks if self.sizes else ():
            for size in (*self.sizes, None):
                network.run_at(size)  # type: ignore[operator]

    def at(self, spent: float) -> tuple[int | None, float]:
        """Edge of the grid in voxels (None: the full one), and how far its finest level
        is faded in, 0 to 1.

        The coarser grids share the first part of training evenly.
        """
        if not self.sizes or self.share <= 0:
            return None, 1.0
        each = self.share / len(self.sizes)
        stage = min(int(spent / each), len(self.sizes))
        size = self.sizes[stage] if stage < len(self.sizes) else None
        if stage == 0:
            return size, 1.0
        return size, min(1.0, (spent - stage * each) / (FADING * self.share))

    def apply(self, spent: float) -> bool:
        """Grow as due; returns whether the grid changed."""
        if not self.sizes:
            return False
        size, fade = self.at(spent)
        for network in self.networks:
            network.run_at(size, fade)  # type: ignore[operator]
        changed = size != self.size
        self.size = size
        return changed
