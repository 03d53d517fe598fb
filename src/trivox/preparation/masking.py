"""Hiding random blocks of patches, for learning from images without labels: drawn
first, then applied.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.volumes.volume import Array, Shape

LONGEST = 16
"""Edge of a block in voxels; noise-like smaller ones are restored from the voxels
beside them, nothing is learnt.
"""
BLOCKS = 4
"""Blocks along an axis, at least: short axes get short blocks, slices blocks of one."""


@dataclass(frozen=True)
class Masking:
    """Which share of the blocks is hidden, the same in all channels: one would tell the
    other (He et al. 2022: 0.75).
    """

    share: float = 0.6

    def draw(self, rng: np.random.Generator, patch: Shape) -> Array:
        """Hidden voxels `(z, y, x)`: blocks of a grid whose corner lies anywhere, so
        that no voxel is always a border.
        """
        edges = block_edges(patch)
        counts = [
            math.ceil(size / edge) + (edge > 1)
            for size, edge in zip(patch, edges, strict=True)
        ]
        hidden = np.zeros(math.prod(counts), dtype=bool)
        hidden[rng.permutation(hidden.size)[: round(self.share * hidden.size)]] = True
        mask = hidden.reshape(counts)
        for axis, (size, edge) in enumerate(zip(patch, edges, strict=True)):
            start = int(rng.integers(edge))
            mask = mask.repeat(edge, axis=axis).take(
                range(start, start + size), axis=axis
            )
        return np.ascontiguousarray(mask)


def block_edges(patch: Shape) -> Shape:
    """Size of a block in voxels."""
    z, y, x = (max(1, min(LONGEST, size // BLOCKS)) for size in patch)
    return z, y, x


def hide(images: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Images `(b, c, z, y, x)` with hidden voxels `(b, z, y, x)` at 0, and what was
    there; NaN where nothing was hidden.
    """
    away = hidden[:, None]
    return images.masked_fill(away, 0), images.masked_fill(~away, torch.nan)
