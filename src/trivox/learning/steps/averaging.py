"""The moving average of the weights: smoother than the last step's, and usually a
little better (Polyak & Juditsky 1992).
"""

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """A second network whose parameters follow the trained one:
    `average += (1 - d_t) * (weights - average)`.

    The decay warms up, `d_t = min(decay, (1 + t) / (10 + t))` after t earlier steps, so
    that the random weights of the start are forgotten in a short run too: after 100
    steps it is 0.92 at most. Buffers are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def decay_at(self, step: int) -> float:
        """The decay after `step` earlier steps."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Follow `network` after its step number `step`, counted from 0."""
        averages: list[Tensor] = [*self.network.parameters()]
        weights: list[Tensor] = [*network.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay_at(step))
        copies = list(self.network.buffers())
        if copies:
            torch._foreach_copy_(copies, list(network.buffers()))
