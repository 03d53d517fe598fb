"""What is known of a network family before anything heavy is imported."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trivox.config.presets import network_settings
from trivox.errors import RecipeError
from trivox.planning.blueprint import Blueprint

if TYPE_CHECKING:
    from torch import nn

    from trivox.planning.topology import Sizes, Topology

Option = bool | int | float | str
Builder = Callable[..., "nn.Module"]
"""Builds a network; imports its module when it is called."""


@dataclass(frozen=True)
class Family:
    """A network that can be chosen by name.

    says: what it is, in one line for help and documentation; options: names of the
    settings of its own.
    """

    kind: str
    size: str
    says: str
    build: Builder
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called on the command line and in plans."""
        return f"{self.kind}-{self.size}"

    @property
    def settings(self) -> Mapping[str, Mapping[str, Any]]:
        """What it changes in each preset of a recipe."""
        return network_settings(self.name)

    def require_options(self, given: Mapping[str, Option]) -> None:
        """Raise `RecipeError` with the known options if one of `given` is not known."""
        known = ", ".join(self.options) or "none"
        for option in given:
            if option not in self.options:
                raise RecipeError(
                    f"network '{self.name}' has no option '{option}'; its options: "
                    f"{known}"
                )


@dataclass(frozen=True, kw_only=True)
class PatchFamily(Family):
    """A network that reads patches of images; its topology follows from a plan."""

    blueprint: Blueprint

    def shape(
        self, patch: Sequence[int], spacing: Sequence[float]
    ) -> "tuple[Topology, Sizes]":
        """The topology for `patch` voxels at `spacing` mm, and the patch padded to what
        it needs.
        """
        from trivox.planning.topology import fitted_topology

        return fitted_topology(self.blueprint, patch, spacing)


@dataclass(frozen=True, kw_only=True)
class XrayFamily(Family):
    """A network that reads X-rays and gives a volume.

    native: voxels along an axis that it is made for; any grid will do that its levels
    fit.
    """

    native: int
