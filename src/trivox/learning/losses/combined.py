"""Losses made of losses: a weighted sum of terms, one at every scale of deep
supervision, and weights that are learnt.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from trivox.learning.losses.targets import taking_part
from trivox.learning.losses.weighting import balanced
from trivox.learning.runtime import sum_over_ranks, world_size
from trivox.uploads import made_once, sent

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits `(b, c, z, y, x)` and indices `(b, z, y, x)` to a scalar, or to one number a
term.
"""
Terms = Callable[[Tensor | list[Tensor], Tensor], Tensor]

WINDOW = 100
"""Training steps over which the terms are averaged before their balance is struck anew.
"""


class CombinedLoss(nn.Module):
    """A weighted sum of losses by name."""

    def __init__(
        self, losses: Mapping[str, Loss], weights: Mapping[str, float]
    ) -> None:
        super().__init__()
        self.losses = dict(losses)
        self.weights = dict(weights)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The losses without their weights, `(term,)`."""
        return torch.stack([loss(logits, labels) for loss in self.losses.values()])

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted sum."""
        weighted = [
            self.weights[name] * loss(logits, labels)
            for name, loss in self.losses.items()
        ]
        return torch.stack(weighted).sum()


class DeepSupervisionLoss(nn.Module):
    """Any loss at every decoder output, each at its own resolution against the nearest
    labels (nnU-Net).

    base: returns a scalar, or one number a term; the result has the same shape.
    """

    def __init__(self, base: Loss) -> None:
        super().__init__()
        self.base = base

    def forward(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """Weighted sum over the outputs, finest first; `labels` are at full resolution."""
        scales = [outputs] if isinstance(outputs, Tensor) else outputs
        weights = supervision_weights(len(scales))
        parts: list[Tensor] = []
        idle: list[Tensor] = []
        for weight, logits in zip(weights, scales, strict=True):
            if weight > 0:
                small = shrink_labels(labels, logits.shape[2:])
                parts.append(weight * self.base(logits, small))
            else:
                idle.append(taking_part(logits))
        return torch.stack(parts).sum(0) + sum(idle)


class AdaptiveLoss(nn.Module):
    """Terms whose weights are found in training.

    uncertainty: `sum_t exp(-s_t) L_t + s_t` with learnt s (Kendall, Gal & Cipolla
        2018); the weight of a term comes to rest at 1 / L_t, so the logarithms of the
        terms are what falls. The sum may become negative.
    balancing: dynamic weight average (Liu et al. 2019) of the means over `window`
        training steps; no gradient.

    Both begin with `weights`. Ranks share what the weights are found from, so that they
    stay equal without being reduced.
    """

    log_variance: nn.Parameter
    start: Tensor
    factor: Tensor
    total: Tensor
    earlier: Tensor
    steps: Tensor

    def __init__(
        self,
        terms: Terms,
        weights: Mapping[str, float],
        *,
        rule: Literal["uncertainty", "balancing"],
        window: int = WINDOW,
    ) -> None:
        super().__init__()
        self.terms = terms
        self.names = tuple(weights)
        self.rule = rule
        self.window = window
        start = torch.tensor(list(weights.values()), dtype=torch.float32)
        if rule == "uncertainty":
            self.log_variance = nn.Parameter(-start.log())
            return
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("factor", torch.ones_like(start))
        self.register_buffer("total", torch.zeros_like(start))
        self.register_buffer("earlier", torch.zeros_like(start))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.seen: int | None = None
        """`steps` on the host, where no step has to wait for it; None: not known."""
        self.register_load_state_dict_post_hook(_forget)

    def forward(self, outputs: Tensor | list[Tensor], labels: Tensor) -> Tensor:
        """The weighted sum; every call with gradients counts as a training step."""
        terms = self.terms(outputs, labels)
        if self.rule == "balancing":
            value = (self.start * self.factor * terms).sum()
            if torch.is_grad_enabled():
                self._observe(terms.detach())
            return value
        weight = (-self.log_variance).exp()
        shared = sum_over_ranks(terms.detach().clone()) / world_size()
        # the value is that of this rank's terms, the gradient of the weights that of
        # all ranks'
        learnt = (weight * shared + self.log_variance).sum()
        fixed = weight.detach()
        return (fixed * terms).sum() + learnt - (fixed * shared).sum()

    @torch.no_grad()
    def _observe(self, terms: Tensor) -> None:
        """Add up one window, then compare its mean with that of the window before."""
        # the trainer leaves a step out that is not finite
        self.total += terms.nan_to_num(0.0, 0.0, 0.0)
        self.steps += 1
        seen = int(self.steps) if self.seen is None else self.seen + 1
        self.seen = seen
        if seen % self.window:
            return
        recent = sum_over_ranks(self.total.clone()) / (self.window * world_size())
        if seen > self.window:
            self.factor.copy_(balanced(recent, self.earlier))
        self.earlier.copy_(recent)
        self.total.zero_()

    def term_weights(self) -> dict[str, float]:
        """The present weight of each term."""
        if self.rule == "uncertainty":
            now = (-self.log_variance).exp()
        else:
            now = self.start * self.factor
        return dict(zip(self.names, now.detach().tolist(), strict=True))


def _forget(loss: AdaptiveLoss, _keys: object) -> None:
    """Steps are counted anew from what was loaded."""
    loss.seen = None


def shrink_labels(labels: Tensor, size: Sequence[int]) -> Tensor:
    """Nearest label (exact centres) at the scale of a deep-supervision output, `(b, z,
    y, x)` to `(b, *size)`.
    """
    for axis, new in enumerate(size, start=1):
        old = labels.shape[axis]
        if new != old:
            labels = labels.index_select(axis, _nearest(old, new, labels.device))
    return labels


@made_once(64)
def _nearest(old: int, new: int, device: torch.device) -> Tensor:
    """Which of `old` voxels along an axis lies at the centre of each of `new` ones; sent
    once.
    """
    at = ((torch.arange(new) + 0.5) * (old / new)).long()
    return sent(at, device)


def supervision_weights(scales: int) -> list[float]:
    """Weights 1, 1/2, 1/4 and so on of the outputs from fine to coarse, the coarsest 0
    (nnU-Net), summing to 1.
    """
    weights = [0.5**scale for scale in range(scales)]
    if scales > 1:
        weights[-1] = 0.0
    return [weight / sum(weights) for weight in weights]
