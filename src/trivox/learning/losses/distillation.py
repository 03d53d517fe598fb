"""Learning from the answers of other networks (Hinton, Vinyals & Dean 2015).

`T^2 KL(q || p)` with the teachers' probabilities q and the student's p, both of logits
divided by the temperature T, mean over voxels; T^2 keeps the size of the gradients
whatever T is. Exclusive classes: softmax over `(b, c, z, y, x)`; regions: sigmoid, the
divergence of yes and no for each, mean over regions.

Small structures hardly count in a mean over voxels; the soft Dice of p and q (squares
in the denominator: Milletari et al. 2016), which is 1 where they agree, weighs each
target alike.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.learning.losses.targets import SMOOTH, full_precision


def soft_answers(
    voters: Iterable[Tensor], *, temperature: float, exclusive: bool
) -> Tensor:
    """Mean probabilities `(b, c, z, y, x)` of the logits of one or several networks,
    softened; one of them is in memory at a time.
    """
    total: Tensor | None = None
    count = 0
    for logits in voters:
        softened = full_precision(logits) / temperature
        answers = softened.softmax(1) if exclusive else softened.sigmoid()
        total = answers if total is None else total.add_(answers)
        count += 1
    assert total is not None
    return total.div_(count)


def soft_divergence(
    logits: Tensor, answers: Tensor, *, temperature: float, exclusive: bool
) -> Tensor:
    """`T^2 KL` of the student's logits from the probabilities `answers`, both `(b, c, z,
    y, x)`; 0 where they agree.
    """
    softened = full_precision(logits) / temperature
    if exclusive:
        # of a voxel: the sum over classes
        scale = temperature**2 * answers.shape[1]
        return scale * _mean_divergence(answers, softened.log_softmax(1))
    inside = _mean_divergence(answers, F.logsigmoid(softened))
    outside = _mean_divergence(1 - answers, F.logsigmoid(-softened))
    return temperature**2 * (inside + outside)


def soft_mismatch(
    logits: Tensor, answers: Tensor, *, temperature: float, exclusive: bool
) -> Tensor:
    """`sum (p - q)^2 / (sum p^2 + sum q^2)`, 1 - soft Dice, as a mean over samples and
    targets; of exclusive classes the background is left out.
    """
    softened = full_precision(logits) / temperature
    if exclusive:
        mine = softened.softmax(1)[:, 1:].flatten(2)
        theirs = answers[:, 1:].flatten(2)
    else:
        mine = softened.sigmoid().flatten(2)
        theirs = answers.flatten(2)
    apart = (mine - theirs).square().sum(2)
    size = mine.square().sum(2) + theirs.square().sum(2)
    return (apart / (size + SMOOTH)).mean()


def _mean_divergence(answers: Tensor, logarithm: Tensor) -> Tensor:
    """The mean of `q log q - q log p`."""
    return (torch.xlogy(answers, answers) - answers * logarithm).mean()
