"""Lovász-softmax: the convex extension of the Jaccard loss (Berman, Triki & Blaschko
2018).

The errors |y - p| of a target are sorted; each weighs what adding its voxel to the
mistakes would cost in IoU. Sorting makes it the dearest of the overlap losses: n log n
for each target.
"""

import torch
from torch import Tensor

from trivox.learning.losses.targets import masks


def lovasz(
    logits: Tensor,
    labels: Tensor,
    *,
    regions: Tensor | None = None,
    batch: bool = False,
) -> Tensor:
    """Mean over samples and targets; `batch` pools the voxels of the batch (of this
    rank only: a sort cannot be summed).

    An absent target counts with its largest error, so that false positives cost
    something in empty patches too.
    """
    probability, target = masks(logits, labels, regions)
    # (b, target, z, y, x); 0 where ignored, so sorted last
    error = torch.where(target, 1 - probability, probability)
    if batch:
        error = error.transpose(0, 1)[None]
        target = target.transpose(0, 1)[None]
    rows = zip(
        error.flatten(2).flatten(0, 1), target.flatten(2).flatten(0, 1), strict=True
    )
    each = [row @ _slopes(row.detach(), truth) for row, truth in rows]
    return torch.stack(each).mean()


@torch.no_grad()
def _slopes(error: Tensor, target: Tensor) -> Tensor:
    """What each voxel's error weighs, `(n,)`: the increase of 1 - IoU when the voxel
    joins those with larger errors.

    The extension is linear between two orders of the errors, so these slopes are also
    its gradient.
    """
    order = error.argsort(descending=True)
    inside = target[order]
    hit = inside.cumsum(0)
    other = (~inside).cumsum(0)
    size = hit[-1]
    left = size - hit
    union = size + other
    # 1 - left / union, differenced by hand: in fp32 the difference of two such numbers
    # near 1 would be noise
    increase = torch.where(
        inside,
        1 / union.to(error.dtype),
        left / (union * (union - 1).clamp(min=1)).to(error.dtype),
    )
    increase[0] = torch.where(size > 0, increase[0], torch.ones_like(increase[0]))
    return torch.zeros_like(error).scatter(0, order, increase)
