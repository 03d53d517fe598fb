"""Label indices of scores."""

import torch
from torch import Tensor

from trivox.datasets.labels import LabelScheme
from trivox.volumes.volume import Array

FEW = 12
"""Scores below which their index is found at once."""
IN_CACHE = 2**15
"""Voxels whose scores are compared together."""


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
    return largest(scores)[1]


def indices_of(won: Tensor, scheme: LabelScheme) -> Array:
    """Label indices (int16) `(...)` of `winners` that are in memory."""
    array = won.numpy()
    return array if scheme.exclusive else scheme.paint_regions(array)


def largest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The largest of scores `(c, ...)` and its index (int16), the first of equals; there
    is no NaN among them.
    """
    if scores.is_cuda or len(scores) < FEW:
        # several times faster on CPUs than an argmax
        highest, index = scores.max(0)
        return highest, index.to(torch.int16)
    # and of many classes that is much slower than finding the value alone
    highest = torch.empty(scores.shape[1:], dtype=scores.dtype)
    index = torch.zeros(scores.shape[1:], dtype=torch.int16)
    flat = scores.flatten(1)
    portions = (
        flat.split(IN_CACHE, 1),
        highest.flatten().split(IN_CACHE),
        index.flatten().split(IN_CACHE),
    )
    for part, top, place in zip(*portions, strict=True):
        torch.amax(part, 0, out=top)
        for number in range(len(part) - 1, -1, -1):
            place.masked_fill_(part[number] == top, number)
    return highest, index
