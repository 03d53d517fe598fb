"""Gradients that the ranks share."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def with_shared_gradients(
    network: nn.Module, device: torch.device, *, parts_left_out: bool
) -> DistributedDataParallel:
    """A network whose gradients are the mean over the ranks.

    parts_left_out: some steps use only a part of the parameters. Gradients lie where
    they are exchanged from, not in copies. Buffers are sent only where running
    statistics change them in training. The graph is not declared static: torch cannot
    do that where gradients are summed over micro-batches first.
    """
    shared = DistributedDataParallel(
        network,
        device_ids=[device.index] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=parts_left_out,
    )
    # the argument of this name has another one from torch 2.13 on
    shared.broadcast_buffers = has_running_statistics(network)
    return shared


def has_running_statistics(network: nn.Module) -> bool:
    """Whether forward passes in training change the network's buffers."""
    return any(
        getattr(module, "track_running_stats", False) for module in network.modules()
    )
