"""Forecast of the memory of a training step: weights, optimizer, gradients, saved activations, loss.

Counts what autograd keeps for a convolution block (input of the convolution, input of the normalisation, and the
normalisation's output, which the in-place activation shares) plus the largest transient of the backward pass. Within 15 %
of torch's measured peak over the topologies in `tests/planning/test_memory.py`.
"""

import math
from collections.abc import Sequence

from trivox.planning.plan import MemoryForecast
from trivox.planning.topology import Topology, stage_sizes

OPTIMIZER_STATES = {"sgd": 1, "adamw": 2}


def parameter_count(topology: Topology, channels: int, outputs: int) -> int:
    """Trainable parameters of the U-Net for this topology, deep-supervision heads included."""
    total, width = 0, channels
    if topology.residual:
        total += _conv(width, topology.features[0], topology.kernels[0]) + 2 * topology.features[0]
        width = topology.features[0]
    for stage, features in enumerate(topology.features):
        total += _encoder_stage(topology, stage, width)
        width = features
    for stage in range(topology.stages - 1):  # decoder, one for each resolution but the coarsest
        below, features = topology.features[stage + 1], topology.features[stage]
        total += _conv(below, features, topology.strides[stage + 1])
        for block in range(topology.decoder_blocks[stage]):
            total += _conv(2 * features if block == 0 else features, features, topology.kernels[stage]) + 2 * features
        total += _conv(features, outputs, (1,))
    return total


def _conv(inputs: int, outputs: int, kernel: Sequence[int]) -> int:
    return inputs * outputs * math.prod(kernel) + outputs


def _encoder_stage(topology: Topology, stage: int, width: int) -> int:
    features, kernel = topology.features[stage], topology.kernels[stage]
    total = 0
    for block in range(topology.encoder_blocks[stage]):
        inputs = width if block == 0 else features
        total += _conv(inputs, features, kernel) + 2 * features
        if topology.residual:
            total += _conv(features, features, kernel) + 2 * features
            if inputs != features:
                total += inputs * features + 2 * features
    return total


def forecast_memory(
    topology: Topology,
    patch: Sequence[int],
    *,
    batch: int,
    channels: int,
    outputs: int,
    optimizer: str = "sgd",
    deep_supervision: bool = True,
    activation_bytes: int = 4,
) -> MemoryForecast:
    """Bytes of one training step; `activation_bytes` is 4 for fp32 and 2 under bf16 or fp16 autocast."""
    parameters = parameter_count(topology, channels, outputs)
    sizes = [math.prod(size) for size in stage_sizes(patch, topology.strides)]
    saved = sum(_saved_maps(topology, stage, channels) * size for stage, size in enumerate(sizes))
    # backward at full resolution: gradients of the concatenation, of the normalisation and of the convolution's input
    transient = 4 * topology.features[0] * sizes[0]
    heads = sum(sizes[:-1]) if deep_supervision else sizes[0]
    loss = batch * heads * (outputs * (4 + activation_bytes) + 8) + batch * sizes[0] * outputs * 4
    copies = 0 if activation_bytes == 4 else parameters * activation_bytes  # autocast keeps cast weights of a pass
    activations = batch * (saved + transient) * activation_bytes + batch * channels * sizes[0] * 4 + copies
    weights = parameters * 4
    states = OPTIMIZER_STATES[optimizer] * weights
    total = weights * 2 + states + activations + loss
    return MemoryForecast(
        weights=weights, gradients=weights, optimizer=states, activations=activations, loss=loss, total=total
    )


def _saved_maps(topology: Topology, stage: int, channels: int) -> int:
    """Feature maps (channels) kept for backward at one resolution, for one sample."""
    width = topology.features[stage]
    if topology.residual:  # a block keeps two convolutions, their activations, and the sum
        maps = topology.encoder_blocks[stage] * 4 * width + (2 * width if stage == 0 else 3 * width)
    else:
        maps = topology.encoder_blocks[stage] * 2 * width
    if stage < topology.stages - 1:
        # the concatenation (up-sampled half copied next to the skip), then the decoder's blocks
        maps += 2 * width + topology.decoder_blocks[stage] * 2 * width
    return maps
