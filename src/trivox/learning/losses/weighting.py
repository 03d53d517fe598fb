"""Weights: of classes from how many voxels they have, of loss terms from how fast they
fall.
"""

import torch
from torch import Tensor

from trivox.config.options import LossOptions
from trivox.errors import RecipeError


def class_weights(voxels: Tensor | None, options: LossOptions) -> Tensor | None:
    """Weights of `options.class_weights` for targets with `voxels` `(c,)` in a training
    case, on average; None: equal.

    inverse_frequency: 1 / n. effective_number: (1 - beta) / (1 - beta^n) (Cui et al.
    2019), which is 1 / n for small classes and levels off at 1 / (1 - beta) voxels.
    Scaled to a mean of 1; classes that never occur weigh 1.
    """
    if options.class_weights == "none":
        return None
    if voxels is None:
        raise RecipeError(
            "class_weights: needs the voxel counts of the training cases; "
            "set class_weights=none"
        )
    counts = voxels.double()
    if options.class_weights == "inverse_frequency":
        number = counts
    else:
        beta = options.effective_number_beta
        number = (1 - beta**counts) / (1 - beta)
    present = counts > 0
    safe = number.where(present, torch.ones_like(number))
    weights = torch.where(present, 1 / safe, 0.0)
    weights = weights / weights[present].mean()
    return weights.where(present, torch.ones_like(weights)).float()


def balanced(recent: Tensor, earlier: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Dynamic weight average (Liu, Johns & Davison 2019): terms that fall slowly weigh
    more; the mean is 1.

    `t softmax(r / temperature)` for t terms, with r = recent / earlier mean loss of
    each.
    """
    ratio = recent / earlier.clamp(min=1e-12)
    return len(ratio) * (ratio / temperature).softmax(0)
