"""Pooling of feature maps inside soft masks: where a lesion fills 3 % of a patch, a
mean over all of it says little.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

EMPTY = 1e-4
"""Share of the voxels below which a mask counts as empty."""


def masks_at(masks: Tensor, size: torch.Size) -> Tensor:
    """Masks `(b, m, z, y, x)` on the grid of a feature map: means over the voxels that
    each of its own stands for.
    """
    return masks if masks.shape[2:] == size else F.adaptive_avg_pool3d(masks, size)  # type: ignore[arg-type]


def masked_moments(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of `(b, c, z, y, x)` inside masks `(b, m, z, y, x)`,
    each `(b, m, c)`, in fp32.

    Masks may be soft, and of a finer grid. Inside an empty mask both are 0.
    """
    weights = _weights(masks, features)
    flat = features.float().flatten(2)  # (b, c, voxel)
    # about the mean over all voxels, so that large means do not swallow small spreads
    shift = flat.mean(2, keepdim=True)
    about = flat - shift
    offset, square = (
        weights @ about.transpose(1, 2),
        weights @ (about * about).transpose(1, 2),
    )
    mean = offset + shift.transpose(1, 2) * weights.sum(2, keepdim=True)
    return mean, (square - offset.square()).clamp(min=0).sqrt()


def _weights(masks: Tensor, features: Tensor) -> Tensor:
    """Shares of the voxels `(b, m, voxel)` that sum to 1, or to 0 where the mask is
    empty.
    """
    flat = masks_at(masks.float(), features.shape[2:]).flatten(2)
    mass = flat.sum(2, keepdim=True)
    present = mass > EMPTY * flat.shape[2] * flat.amax(2, keepdim=True).clamp(min=EMPTY)
    return torch.where(
        present & (mass > 0), flat / mass.clamp(min=1e-12), torch.zeros_like(flat)
    )


def masked_attention(features: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
    """Features `(b, c, z, y, x)` averaged with weights `softmax(q .

    f / sqrt(c) + log m)` over the voxels, `(b, m, c)`.

    queries: `(m, c)`, one for each mask; a mask `(b, m, z, y, x)` enters as a bias
    (masked cross-attention, Cheng et al. 2022), so that a query looks at some of the
    lesion and never far outside it.
    """
    flat = features.flatten(2).float()  # (b, c, voxel)
    inside = masks_at(masks.float(), features.shape[2:]).flatten(2)
    scores = queries @ flat / queries.shape[1] ** 0.5 + (inside + 1e-12).log()
    pooled: Tensor = scores.softmax(2) @ flat.transpose(1, 2)
    return pooled
