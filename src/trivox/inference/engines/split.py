"""Networks in two parts: what computes features, and the last layer, a convolution of
1x1x1 that turns these into logits.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trivox.inference.engines.engine import Engine, Split


@dataclass(frozen=True, eq=False)
class SplitEngine:
    """An engine of the first part, and the last layer in single precision by torch."""

    body: Engine
    layer: nn.Conv3d

    @property
    def name(self) -> str:
        """See `Engine`."""
        return self.body.name

    @property
    def device(self) -> torch.device:
        """See `Engine`."""
        return self.body.device

    @property
    def precision(self) -> str:
        """See `Engine`."""
        return self.body.precision

    @property
    def voxels_a_batch(self) -> int:
        """See `Engine`."""
        return self.body.voxels_a_batch

    def logits(self, windows: Tensor) -> Tensor:
        """See `Engine`."""
        logits: Tensor = self.layer(self.body.logits(windows).float())
        return logits

    def split(self) -> Split:
        """See `Engine`."""
        return self.body, self.layer


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


def narrowing_layer(network: nn.Module) -> nn.Conv3d | None:
    """The last layer of a network that has fewer features than logits; None for
    others.
    """
    layer = last_layer(network)
    if layer is None or layer.in_channels >= layer.out_channels:
        return None
    return layer


def without_last(network: nn.Module) -> nn.Module:
    """The same network, with the same parameters, that ends before its last layer."""
    body = copy.copy(network)
    assert isinstance(network.heads, nn.ModuleList)
    heads = nn.ModuleList([nn.Identity(), *network.heads[1:]])
    body._modules = {**network._modules, "heads": heads}
    return body
