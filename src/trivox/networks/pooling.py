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
    given = masks.shape[2:]
    if given == size:
        return masks
    if any(old % new for old, new in zip(given, size, strict=True)):
        return F.adaptive_avg_pool3d(masks, size)  # type: ignore[arg-type]
    # the same, which Apple's GPUs have a kernel for
    blocks = [old // new for old, new in zip(given, size, strict=True)]
    return F.avg_pool3d(masks, blocks)


def masked_moments(features: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of `(b, c, z, y, x)` inside masks `(b, m, z, y, x)`,
    each `(b, m, c)`, in fp32.

    Masks may be soft, and of a finer grid. Inside an empty mask both are 0.
    """
    weights = _weights(masks, features)
    values = features.float().flatten(2)  # (b, c, voxel)
    # From the mean over all voxels, so that large means do not swallow small spreads.
    shift = values.mean(2, keepdim=True)
    centred = (values - shift).transpose(1, 2)
    offset = weights @ centred
    square = weights @ (centred * centred)
    mass = weights.sum(2, keepdim=True)
    mean = offset + shift.transpose(1, 2) * mass
    variance = square - offset.square()
    return mean, variance.clamp(min=0).sqrt()


def _weights(masks: Tensor, features: Tensor) -> Tensor:
    """Shares of the voxels `(b, m, voxel)` that sum to 1, or to 0 where the mask is
    empty.
    """
    inside = masks_at(masks.float(), features.shape[2:])
    inside = inside.flatten(2)  # (b, m, voxel)
    mass = inside.sum(2, keepdim=True)
    highest = inside.amax(2, keepdim=True).clamp(min=EMPTY)
    least = EMPTY * inside.shape[2] * highest
    present = (mass > least) & (mass > 0)
    return torch.where(
        present,
        inside / mass.clamp(min=1e-12),
        torch.zeros_like(inside),
    )


def masked_attention(features: Tensor, masks: Tensor, queries: Tensor) -> Tensor:
    """Features `(b, c, z, y, x)` averaged over the voxels with weights
    `softmax(q . f / sqrt(c) + log m)`, `(b, m, c)`.

    queries: `(m, c)`, one for each mask; a mask `(b, m, z, y, x)` enters as a bias
    (masked cross-attention, Cheng et al. 2022), so that a query looks at some of the
    lesion and never far outside it.
    """
    values = features.flatten(2).float()  # (b, c, voxel)
    inside = masks_at(masks.float(), features.shape[2:])
    inside = inside.flatten(2)  # (b, m, voxel)
    width = queries.shape[1]
    likeness = queries @ values / width**0.5
    bias = inside.clamp(min=1e-12).log()
    weights = (likeness + bias).softmax(2)
    pooled: Tensor = weights @ values.transpose(1, 2)
    return pooled
