"""Sums of features in place of sums of logits, so that memory does not grow with the
number of classes.

The last layer of a network is linear (a convolution of 1x1x1), and so is the weighted
mean over windows, mirrored copies and networks. So the mean of the features times the
layer is the mean of the logits, but for rounding; and there are 32 features, say, for any
number of classes.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trivox.inference.engines.engine import Engine
from trivox.inference.engines.torch import TorchEngine

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

    def rows(self, features: Tensor) -> Iterator[Tensor]:
        """Logits `(outputs, rows, y, x)` float32 of mean features `(f, z, y, x)`, some
        rows at a time.
        """
        _, depth, height, width = features.shape
        outputs = len(self.weight)
        step = max(1, VALUES_AT_ONCE // (outputs * height * width))
        for first in range(0, depth, step):
            part = features[:, first : first + step]
            flat = torch.addmm(self.bias[:, None], self.weight, part.flatten(1))
            yield flat.reshape(outputs, -1, height, width)


def features_of(engines: Sequence[Engine], outputs: int) -> Features | None:
    """The features of all networks; None where they are not fewer than the outputs, or
    where a network is not computed by torch on a CPU or ends in another layer.
    """
    bodies: list[Engine] = []
    layers: list[nn.Conv3d] = []
    for engine in engines:
        if not isinstance(engine, TorchEngine) or engine.device.type != "cpu":
            return None
        layer = last_layer(engine.network)
        if layer is None:
            return None
        body = TorchEngine(without_last(engine.network), engine.runtime, engine.room)
        bodies.append(body)
        layers.append(layer)
    weights = [layer.weight.detach().float().flatten(1) for layer in layers]
    weight = torch.cat(weights, dim=1) / len(layers)
    biases = [_bias(layer) for layer in layers]
    bias = torch.stack(biases).mean(0)
    if weight.shape[1] >= outputs:
        return None
    return Features(bodies, weight, bias)


def last_layer(network: nn.Module) -> nn.Conv3d | None:
    """What makes logits of the finest features, for networks that have `heads`; None
    for others.
    """
    heads = getattr(network, "heads", None)
    if not isinstance(heads, nn.ModuleList) or not len(heads):
        return None
    first = heads[0]
    if not isinstance(first, nn.Conv3d) or first.groups != 1:
        return None
    return first if first.weight[0, 0].numel() == 1 else None


def without_last(network: nn.Module) -> nn.Module:
    """The same network, with the same parameters, that ends before its last layer."""
    body = copy.copy(network)
    assert isinstance(network.heads, nn.ModuleList)
    heads = nn.ModuleList([nn.Identity(), *network.heads[1:]])
    body._modules = {**network._modules, "heads": heads}
    return body


def _bias(layer: nn.Conv3d) -> Tensor:
    if layer.bias is None:
        return torch.zeros(layer.out_channels)
    return layer.bias.detach().float()
