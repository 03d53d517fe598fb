"""Sums of features in place of sums of logits, where there are fewer of them, so that
memory does not grow with the number of classes, and time little.

The last layer of a network is linear (a convolution of 1x1x1), and so is the weighted
mean over windows, mirrored copies and networks. So the mean of the features times the
layer is the mean of the logits, but for rounding; and there are 32 features, say, for any
number of classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trivox.inference.engines.engine import Engine

VALUES_AT_ONCE = 2**25
"""Logits that are made at once."""


@dataclass(frozen=True, eq=False)
class Features:
    """An engine of all networks of a member, which gives the features `(b, f, z, y, x)`
    that their last layers turn into logits, one network's after the other's.

    weight: `(outputs, f)` and bias: `(outputs,)` of the mean of these logits.
    """

    engines: Sequence[Engine]
    weight: Tensor
    bias: Tensor

    @property
    def name(self) -> str:
        """See `Engine`."""
        return self.engines[0].name

    @property
    def device(self) -> torch.device:
        """See `Engine`."""
        return self.engines[0].device

    @property
    def precision(self) -> str:
        """See `Engine`."""
        return self.engines[0].precision

    @property
    def voxels_a_batch(self) -> int:
        """See `Engine`."""
        return min(engine.voxels_a_batch for engine in self.engines)

    def logits(self, windows: Tensor) -> Tensor:
        """The features, where others give logits."""
        parts = [engine.logits(windows) for engine in self.engines]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def split(self) -> None:
        """None: they are apart already."""
        return

    def rows(self, features: Tensor) -> Iterator[Tensor]:
        """Logits `(outputs, rows, y, x)` float32 of mean features `(f, z, y, x)`, some
        rows at a time: use or copy them before asking for the next.
        """
        _, depth, height, width = features.shape
        outputs = len(self.weight)
        step = max(1, VALUES_AT_ONCE // (outputs * height * width))
        buffer = torch.empty(outputs * min(step, depth) * height * width)
        for first in range(0, depth, step):
            part = features[:, first : first + step].flatten(1)
            flat = buffer[: outputs * part.shape[1]].view(outputs, -1)
            torch.addmm(self.bias[:, None], self.weight, part, out=flat)
            yield flat.view(outputs, -1, height, width)


def features_of(engines: Sequence[Engine], outputs: int) -> Features | None:
    """The features of all networks; None where they are not fewer than the outputs, or
    where a network does not come apart.
    """
    parts = [engine.split() for engine in engines]
    split = [part for part in parts if part is not None]
    if len(split) < len(parts):
        return None
    bodies = [body for body, _ in split]
    layers = [layer for _, layer in split]
    weights = [layer.weight.detach().float().flatten(1) for layer in layers]
    weight = torch.cat(weights, dim=1) / len(layers)
    if weight.shape[1] >= outputs:
        return None
    biases = [_bias(layer) for layer in layers]
    return Features(bodies, weight, torch.stack(biases).mean(0))


def _bias(layer: nn.Conv3d) -> Tensor:
    if layer.bias is None:
        return torch.zeros(layer.out_channels)
    return layer.bias.detach().float()
