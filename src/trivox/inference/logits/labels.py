"""Label indices of scores."""

import torch
from torch import Tensor

from trivox.datasets.labels import LabelScheme
from trivox.volumes.volume import Array


def label_indices(scores: Tensor, scheme: LabelScheme, *, above: float = 0) -> Array:
    """Label indices (int16) `(...)` of scores `(output, ...)`, as
    `LabelScheme.decide` has them.

    above: what a region needs to be painted, 0 of logits and 0.5 of probabilities.
    """
    won = winners(scores, scheme, above=above)
    return indices_of(won.cpu(), scheme)


def winners(scores: Tensor, scheme: LabelScheme, *, above: float) -> Tensor:
    """What the labels of scores `(output, ...)` are made of: int16 `(...)`, the index
    of the largest, or bool `(region, ...)`, whether it is `above`.
    """
    if not scheme.exclusive:
        return scores > above
    # several times faster on CPUs than an argmax
    return scores.max(0).indices.to(torch.int16)


def indices_of(won: Tensor, scheme: LabelScheme) -> Array:
    """Label indices (int16) `(...)` of `winners` that are in memory."""
    array = won.numpy()
    return array if scheme.exclusive else scheme.paint_regions(array)
