"""How large a network is.

Levels are counted from the coarsest, so that a finer grid adds levels and changes none.
"""

import math
from dataclasses import dataclass

from trivox.errors import RecipeError
from trivox.volumes.volume import Shape

LEVELS = 8
"""From 128 voxels along an axis to one."""
LIFTED = 4
"""Finest levels that look into the X-rays, each at its own scale of the pyramid."""


@dataclass(frozen=True)
class ReconstructionSize:
    """What holds for levels is listed coarsest first, what holds for scales of the
    X-rays finest first.

    widths: features of the levels; layers, growth: of their residual dense blocks;
    attention: levels with transformers (from 1 on: where level 0 is a single voxel, it
    has nothing to attend to); window: tokens along an axis; pyramid: features of the
    X-rays' scales; lifted: features of the views at the finest levels, finest first;
    heads, between_views: attention heads and blocks between the views.
    """

    widths: tuple[int, ...]
    layers: tuple[int, ...]
    growth: tuple[int, ...]
    attention: tuple[int, ...]
    window: int
    pyramid: tuple[int, ...]
    lifted: tuple[int, ...]
    heads: int
    between_views: int


RECONSTRUCTION_SIZES = {
    "tiny": ReconstructionSize(
        widths=(48, 48, 48, 48, 32, 16, 16, 16),
        layers=(2, 2, 2, 2, 2, 1, 1, 1),
        growth=(32, 32, 32, 32, 16, 16, 16, 16),
        attention=(1, 2),
        window=2,
        pyramid=(8, 16, 32, 48),
        lifted=(4, 16, 16, 16),
        heads=4,
        between_views=1,
    ),
    "small": ReconstructionSize(
        widths=(256, 256, 192, 128, 64, 32, 16, 16),
        layers=(3, 3, 3, 3, 3, 2, 1, 1),
        growth=(64, 64, 48, 32, 32, 16, 16, 16),
        attention=(1, 2, 3, 4),
        window=4,
        pyramid=(16, 32, 64, 128),
        lifted=(8, 16, 32, 32),
        heads=4,
        between_views=2,
    ),
    "base": ReconstructionSize(
        widths=(288, 288, 320, 256, 192, 96, 48, 24),
        layers=(2, 2, 4, 4, 4, 3, 2, 1),
        growth=(72, 72, 80, 64, 48, 32, 16, 16),
        attention=(1, 2, 3, 4),
        window=4,
        pyramid=(32, 64, 128, 256),
        lifted=(8, 16, 32, 32),
        heads=8,
        between_views=2,
    ),
}
"""By the end of their names; `trivox.networks.registry` lists them."""


def levels_of(shape: Shape, wanted: int | None = None) -> int:
    """Levels down to one voxel along the shortest axis, at most `LEVELS`.

    Raises `RecipeError` where an axis is no power of two, or has no room for the
    `wanted` number.
    """
    if any(size < 8 or size & (size - 1) for size in shape):
        raise RecipeError(
            f"grid {shape}: the network halves every axis, so sizes are powers of two "
            "from 8 on"
        )
    room = min(LEVELS, int(math.log2(min(shape))) + 1)
    if wanted is None:
        return room
    if not LIFTED <= wanted <= room:
        raise RecipeError(
            f"{wanted} levels do not fit a grid of {shape}: it has room for {LIFTED} "
            f"to {room}"
        )
    return wanted
