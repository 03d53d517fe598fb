"""Networks that reconstruct a volume from X-rays, by name."""

from collections.abc import Mapping

from trivox.errors import RecipeError
from trivox.networks.xray2ct.model import HybridCNNViTUNet3D, Prior
from trivox.networks.xray2ct.sizes import (
    NATIVE,
    RECONSTRUCTION_SIZES,
    ReconstructionSize,
)
from trivox.networks.xray2ct.views2d import PIXEL_STEP
from trivox.projection.geometry import Grid

__all__ = [
    "NATIVE",
    "PIXEL_STEP",
    "RECONSTRUCTION_NETWORKS",
    "RECONSTRUCTION_SIZES",
    "HybridCNNViTUNet3D",
    "ReconstructionSize",
    "build_reconstruction_network",
]

RECONSTRUCTION_NETWORKS = {
    f"xray2ct-{name}": size for name, size in RECONSTRUCTION_SIZES.items()
}
"""For 32, 64 and 128 voxels along an axis; any grid will do that the levels fit."""
OPTIONS = ("levels", "deep_supervision")


def build_reconstruction_network(
    name: str,
    *,
    grid: Grid,
    window: tuple[float, float],
    water_per_mm: float,
    options: Mapping[str, bool | int | float | str] | None = None,
    prior: Prior = "sirt",
    prior_iterations: int = 10,
    consistency_steps: int = 1,
) -> HybridCNNViTUNet3D:
    """Build a network by name with options of its own; raises `RecipeError` listing
    what is known.
    """
    if name not in RECONSTRUCTION_NETWORKS:
        raise RecipeError(
            f"network '{name}' does not exist; choose one of {', '.join(RECONSTRUCTION_NETWORKS)}"
        )
    given = dict(options or {})
    strange = next((option for option in given if option not in OPTIONS), None)
    if strange is not None:
        raise RecipeError(
            f"network '{name}' has no option '{strange}'; its options: {', '.join(OPTIONS)}"
        )
    return HybridCNNViTUNet3D(
        grid=grid,
        size=RECONSTRUCTION_NETWORKS[name],
        window=window,
        water_per_mm=water_per_mm,
        prior=prior,
        prior_iterations=prior_iterations,
        consistency_steps=consistency_steps,
        **given,  # type: ignore[arg-type]
    )
