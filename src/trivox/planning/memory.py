"""Forecast of the memory of a training step, by walking backward through the network on
paper.

Autograd keeps tensors in the forward pass and lets go of them one operation after the
other in the backward pass, while gradients of skips and parameters pile up. `Layers`
lists what each operation keeps and needs, `_walk` finds the fullest moment. Where
oneDNN copies tensors into its own layout, the copies count; a GPU has none, what cuDNN
takes to work in is not known. Within 15 % of torch's measured allocations on a CPU
(`tests/planning/test_memory.py`) and on a pretended GPU
(`tests/pretended_gpu/test_forecast.py`); pure arithmetic, no network is built.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from trivox.planning.backward import Layers, Operation
from trivox.planning.blueprint import Measured
from trivox.planning.plan import MemoryForecast
from trivox.planning.topology import Topology

OPTIMIZER_STATES = {"sgd": 1, "adamw": 2}
OPTIMIZER_COPIES = 3
"""Temporaries of the largest parameter while it is updated: decayed gradient, momentum
or denominator, update.
"""


def parameter_count(topology: Topology, channels: int, outputs: int) -> int:
    """Trainable parameters of the network for this topology, deep-supervision heads
    included.
    """
    if topology.measured is not None:
        return topology.measured.parameters
    return sum(_parameters(topology, channels, outputs))


def _parameters(topology: Topology, channels: int, outputs: int) -> Iterator[int]:
    """Parameters of each layer: a convolution together with its norm."""
    width = channels
    if topology.residual:
        yield _normed(width, topology.features[0], topology.kernels[0])
        width = topology.features[0]
    for features, kernel, blocks in zip(
        topology.features, topology.kernels, topology.encoder_blocks, strict=True
    ):
        for _ in range(blocks):
            yield _normed(width, features, kernel)
            if topology.residual:
                yield _normed(features, features, kernel)
                # The projected skip has no bias.
                yield width * features + 2 * features if width != features else 0
            width = features
    for stage in range(topology.stages - 1):
        yield from _decoder_parameters(topology, stage)
        yield topology.features[stage] * outputs + outputs


def _decoder_parameters(topology: Topology, stage: int) -> Iterator[int]:
    below = topology.features[stage + 1]
    features = topology.features[stage]
    yield below * features * math.prod(topology.strides[stage + 1]) + features
    width = 2 * features
    for _ in range(topology.decoder_blocks[stage]):
        yield _normed(width, features, topology.kernels[stage])
        width = features


def _normed(inputs: int, outputs: int, kernel: Sequence[int]) -> int:
    """Weights and bias of a convolution, scale and shift of its norm."""
    return inputs * outputs * math.prod(kernel) + 3 * outputs


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
    gradient_checkpointing: bool = False,
    gpu: bool = False,
) -> MemoryForecast:
    """Bytes alive at the fullest moment of one training step, all parts at that moment.

    activation_bytes: 4 for fp32, 2 under bf16 or fp16 autocast. Small patches of large
    networks are fullest while the optimizer works, all others at full resolution in the
    backward pass. What a network of measured cost saves by gradient checkpointing is
    not known: its forecast stays the same. gpu: of a step there.
    """
    layers = Layers(
        topology,
        patch,
        batch,
        activation_bytes,
        recompute=gradient_checkpointing,
        gpu=gpu,
    )
    if topology.measured is None:
        operations = layers.operations(
            channels, outputs, deep_supervision=deep_supervision
        )
        moment = _walk(list(operations))
        parameters = list(_parameters(topology, channels, outputs))
    else:
        per_voxel = topology.measured.on(gpu=gpu)[activation_bytes < 4]
        moment = _measured_moment(topology.measured, per_voxel, layers.voxels[0])
        # No layer holds more than about a twentieth.
        parameters = [topology.measured.parameters // 20] * 20
    if not gpu:  # whose optimizers work in one pass, without copies
        moment = max(moment, _update(parameters), key=sum)
    weights = 4 * sum(parameters)
    images_and_labels = batch * math.prod(patch) * (4 * channels + 2)
    # The caller holds the logits to the end of the step.
    logits = layers.logits(outputs, deep_supervision=deep_supervision)
    parts = {
        "weights": weights,
        "optimizer": OPTIMIZER_STATES[optimizer] * weights,
        "gradients": moment.gradients,
        "activations": moment.activations + images_and_labels,
        "loss": moment.loss + logits,
    }
    return MemoryForecast(**parts, total=sum(parts.values()))


class _Moment(NamedTuple):
    """What is alive in the backward pass beside weights and optimizer, in bytes."""

    activations: int
    gradients: int
    loss: int


def _update(parameters: Sequence[int]) -> _Moment:
    """While the optimizer works on its largest parameter."""
    largest = OPTIMIZER_COPIES * 4 * max(parameters)
    return _Moment(largest, gradients=4 * sum(parameters), loss=0)


def _measured_moment(
    measured: Measured, bytes_per_voxel: float, voxels: int
) -> _Moment:
    """The fullest moment of a network of measured cost; a fifth of the gradients is
    there then.
    """
    gradients = round(0.2 * 4 * (measured.parameters // 20 * 20))
    return _Moment(round(bytes_per_voxel * voxels), gradients, loss=0)


def _walk(operations: Sequence[Operation]) -> _Moment:
    """The fullest moment of the backward pass."""
    saved = {False: 0, True: 0}  # by whether it belongs to the loss
    for op in operations:
        saved[op.loss] += 0 if op.deferred else op.saved
    held = gradients = incoming = 0
    fullest = _Moment(0, 0, 0)
    for op in reversed(operations):
        saved[op.loss] += op.recomputes
        working = held + incoming + op.gradient + op.workspace
        gradients += 4 * op.parameters
        moment = _Moment(saved[False] + working, gradients, saved[True])
        fullest = max(fullest, moment, key=sum)
        saved[op.loss] -= op.saved
        held += op.held
        incoming = op.gradient
    return fullest
