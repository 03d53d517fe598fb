"""Hiding random blocks of patches, for learning from images without labels: drawn
first, then applied.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trivox.preparation.batches import BatchSource, PatchBatch
from trivox.preparation.sampler import sample_rng
from trivox.uploads import sent
from trivox.volumes.volume import Array, Shape

LONGEST = 16
"""Edge of a block in voxels; noise-like smaller ones are restored from the voxels
beside them, nothing is learnt.
"""
BLOCKS = 4
"""Blocks along an axis, at least: short axes get short blocks, slices blocks of one."""
MASKS = 16
"""First of the streams of random numbers that masks are drawn from."""


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
        axes = list(zip(patch, block_edges(patch), strict=True))
        counts = [math.ceil(size / edge) + (edge > 1) for size, edge in axes]
        blocks = np.zeros(math.prod(counts), dtype=bool)
        order = rng.permutation(blocks.size)
        blocks[order[: round(self.share * blocks.size)]] = True
        mask = blocks.reshape(counts)
        for axis, (size, edge) in enumerate(axes):
            start = int(rng.integers(edge))
            voxels = range(start, start + size)
            mask = mask.repeat(edge, axis=axis).take(voxels, axis=axis)
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


@dataclass(frozen=True, eq=False)
class MaskedBatch:
    """A batch as read, and the voxels `(b, z, y, x)` to hide in it."""

    batch: PatchBatch
    hidden: Tensor

    def finish(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Images and targets `(b, c, z, y, x)` as `hide` gives them."""
        images, _ = self.batch.finish(device)
        return hide(images, sent(self.hidden, device))


@dataclass(frozen=True)
class Masked:
    """The batches of a source with blocks hidden, and in place of the labels what was
    there.
    """

    source: BatchSource
    masking: Masking

    def read(self, step: int) -> MaskedBatch:
        """Draw and read the batch of a step; touches no device and no shared state.

        Blocks are drawn from a stream of their own: the patches are those of the
        source alone.
        """
        source = self.source
        masks: list[Array] = []
        for position in source.positions:
            stream = MASKS + source.stream
            rng = sample_rng(source.seed, step, position, stream=stream)
            masks.append(self.masking.draw(rng, source.sampler.patch_size))
        return MaskedBatch(source.read(step), torch.from_numpy(np.stack(masks)))
