"""How large a network is. Levels are counted from the coarsest, so that a finer grid adds levels and changes none."""

import math
from dataclasses import dataclass

from trivox.errors import RecipeError
from trivox.volumes import Shape

LEVELS = 8
"""From 128 voxels along an axis to one."""
LIFTED = 4
"""Finest levels that look into the X-rays, each at its own scale of the pyramid."""


@dataclass(frozen=True)
class ReconstructionSize:
    """widths: features of the levels, coarsest first; pyramid: of the X-rays' scales, finest first; lifted: of the views at
    the finest levels, finest first; layers, share: of the residual dense blocks, whose growth is width / share; attention:
    levels with transformers, counted from the coarsest; window: tokens along an axis; between_views: attention blocks.
    """

    widths: tuple[int, ...]
    pyramid: tuple[int, ...]
    lifted: tuple[int, ...]
    layers: int
    share: int
    attention: tuple[int, ...]
    window: int
    heads: int
    between_views: int

    def growth(self, level: int) -> int:
        """Channels that a layer of the residual dense blocks adds."""
        return max(4, self.widths[level] // self.share)


RECONSTRUCTION_SIZES = {
    "tiny": ReconstructionSize(
        widths=(64, 64, 48, 32, 16, 8, 8, 8), pyramid=(8, 16, 32, 48), lifted=(8, 16, 16, 16), layers=3, share=4,
        attention=(0, 2, 3), window=4, heads=4, between_views=1,
    ),
    "small": ReconstructionSize(
        widths=(256, 256, 192, 128, 64, 32, 16, 16), pyramid=(16, 32, 64, 128), lifted=(8, 16, 32, 32), layers=3, share=4,
        attention=(0, 2, 3, 4), window=4, heads=4, between_views=2,
    ),
    "base": ReconstructionSize(
        widths=(320, 320, 320, 256, 192, 96, 48, 24), pyramid=(32, 64, 128, 256), lifted=(8, 16, 32, 32), layers=4, share=4,
        attention=(0, 2, 3, 4), window=4, heads=8, between_views=2,
    ),
}  # fmt: skip
NATIVE = {"tiny": 32, "small": 64, "base": 128}
"""Voxels along an axis that each size is made for."""


def levels_of(shape: Shape, wanted: int | None = None) -> int:
    """Levels down to one voxel along the shortest axis, at most `LEVELS`.

    Raises `RecipeError` where an axis is no power of two, or has no room for the `wanted` number.
    """
    if any(size < 8 or size & (size - 1) for size in shape):
        raise RecipeError(f"grid {shape}: the network halves every axis, so sizes are powers of two from 8 on")
    room = min(LEVELS, int(math.log2(min(shape))) + 1)
    if wanted is None:
        return room
    if not LIFTED <= wanted <= room:
        raise RecipeError(f"{wanted} levels do not fit a grid of {shape}: it has room for {LIFTED} to {room}")
    return wanted
