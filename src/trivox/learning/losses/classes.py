"""Losses of a class for the whole case: logits `(b, k)` and indices `(b,)`, -1 where
the class is not known.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.config.options import ClassificationOptions
from trivox.uploads import on_device


def class_cross_entropy(
    logits: Tensor,
    classes: Tensor,
    *,
    weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    focal_gamma: float = 0.0,
) -> Tensor:
    """Cross-entropy of each sample `(b,)`, 0 where the class is not known; a missing
    class is never filled in.

    weights: `(k,)`, of the true class. focal_gamma: factor `(1 - p)^gamma` of focal
    loss (Lin et al. 2017).
    """
    known = classes >= 0
    index = classes.clamp(min=0)
    loss = F.cross_entropy(
        logits, index, reduction="none", label_smoothing=label_smoothing
    )
    if focal_gamma:
        right = logits.softmax(1).gather(1, index[:, None])[:, 0]
        loss = loss * (1 - right) ** focal_gamma
    if weights is not None:
        weights = on_device(weights, logits.device).to(logits.dtype)
        loss = loss * weights[index]
    return torch.where(known, loss, torch.zeros_like(loss))


def balanced_weights(counts: Tensor, options: ClassificationOptions) -> Tensor | None:
    """Weights of classes with `counts` `(k,)` training cases, of mean 1 over the cases;
    None: equal.

    inverse_frequency: 1 / n. effective_number: (1 - beta) / (1 - beta^n) (Cui et al.
    2019).
    """
    if options.class_weights == "none":
        return None
    number = counts.double().clamp(min=1)
    if options.class_weights == "effective_number":
        beta = options.effective_number_beta
        number = (1 - beta**number) / (1 - beta)
    weights = 1 / number
    return (weights * counts.sum() / (weights * counts).sum()).float()
