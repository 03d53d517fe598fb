"""Forecast of the memory of a training step, by walking backward through the network on
paper.

Autograd keeps tensors in the forward pass and lets go of them one operation after the
other in the backward pass, while gradients of skips and parameters pile up. `_Layers`
lists what each operation keeps and needs, `_walk` finds the fullest moment. Where
oneDNN copies tensors into its own layout, the copies count. Within 15 % of torch's
measured allocations on a CPU (`tests/planning/test_memory.py`); pure arithmetic, no
network is built.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from trivox.planning.blueprint import Measured
from trivox.planning.plan import MemoryForecast
from trivox.planning.topology import Topology, stage_sizes

OPTIMIZER_STATES = {"sgd": 1, "adamw": 2}
OPTIMIZER_COPIES = 3
"""Temporaries of the largest parameter while it is updated: decayed gradient, momentum
or denominator, update.
"""
PER_VOXEL = 16
"""Bytes a voxel of what a loss computes besides maps of all classes: maxima, sums,
picked probabilities.
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
) -> MemoryForecast:
    """Bytes alive at the fullest moment of one training step, all parts at that moment.

    activation_bytes: 4 for fp32, 2 under bf16 or fp16 autocast. Small patches of large
    networks are fullest while the optimizer works, all others at full resolution in the
    backward pass. What a network of measured cost saves by gradient checkpointing is
    not known: its forecast stays the same.
    """
    layers = _Layers(
        topology, patch, batch, activation_bytes, recompute=gradient_checkpointing
    )
    if topology.measured is None:
        operations = layers.operations(
            channels, outputs, deep_supervision=deep_supervision
        )
        moment = _walk(list(operations))
        parameters = list(_parameters(topology, channels, outputs))
    else:
        bytes_per_voxel = topology.measured.bytes_per_voxel[activation_bytes < 4]
        moment = _measured_moment(topology.measured, bytes_per_voxel, layers.voxels[0])
        # No layer holds more than about a twentieth.
        parameters = [topology.measured.parameters // 20] * 20
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


@dataclass(frozen=True)
class _Operation:
    """What one operation of the backward pass needs, in bytes.

    saved: kept for it by the forward pass; gradient: what it hands on; workspace:
    needed only while it runs; held: what waits for another branch from then on
    (negative: what no longer waits); loss: whether all this belongs to the loss.
    deferred: what it saves exists only from the recomputation on, which happens before
    the operation that `recomputes`.
    """

    saved: int = 0
    gradient: int = 0
    workspace: int = 0
    parameters: int = 0
    held: int = 0
    loss: bool = False
    deferred: bool = False
    recomputes: int = 0


def _walk(operations: Sequence[_Operation]) -> _Moment:
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


class _Layers:
    """The operations of a U-Net in forward order; maps are in bytes of the whole batch."""

    def __init__(
        self,
        topology: Topology,
        patch: Sequence[int],
        batch: int,
        activation_bytes: int,
        *,
        recompute: bool = False,
    ) -> None:
        self.topology = topology
        self.batch = batch
        self.bytes = activation_bytes
        self.recompute = recompute
        self.voxels = [
            batch * math.prod(size) for size in stage_sizes(patch, topology.strides)
        ]

    def map(self, stage: int, channels: int | None = None) -> int:
        """Bytes of a feature map of a stage, by default of the stage's width."""
        width = self.topology.features[stage] if channels is None else channels
        return width * self.voxels[stage] * self.bytes

    def scales(self, *, deep_supervision: bool) -> range:
        """Stages that have an output; the coarsest of several has no weight in the
        loss.
        """
        return range(self.topology.stages - 1 if deep_supervision else 1)

    def logits(self, outputs: int, *, deep_supervision: bool) -> int:
        """Bytes of all outputs."""
        return sum(
            self.map(stage, outputs)
            for stage in self.scales(deep_supervision=deep_supervision)
        )

    def operations(
        self, channels: int, outputs: int, *, deep_supervision: bool
    ) -> Iterator[_Operation]:
        """From the input to the losses."""
        topology = self.topology
        coarsest = topology.stages - 1
        if self.bytes < 4:
            yield _Operation(saved=self.map(0, channels))  # the cast image
        inputs = (0, channels)  # stage and channels of what comes in
        if topology.residual:
            yield from self.unit(self.block(inputs, 0, first=True))
            inputs = (0, topology.features[0])
        for stage in range(topology.stages):
            yield from self.unit(self.encoder(inputs, stage))
            inputs = (stage, topology.features[stage])
            # The skip's gradient is added: a new sum, and the concatenation's may go.
            if stage < coarsest:
                yield _Operation(gradient=self.map(stage), held=-2 * self.map(stage))
        scales = self.scales(deep_supervision=deep_supervision)
        for stage in reversed(range(coarsest)):
            yield from self.unit(self.decoder(stage))
            if stage in scales:
                yield self.head(stage, outputs)
        for stage in scales if len(scales) == 1 else scales[:-1]:
            yield self.loss(stage, outputs)

    def unit(self, operations: Iterable[_Operation]) -> Iterator[_Operation]:
        """A stage; under gradient checkpointing only its result outlives the forward
        pass.
        """
        *inner, last = operations
        if not self.recompute:
            yield from (*inner, last)
            return
        yield from (replace(op, deferred=True) for op in inner)
        yield replace(last, recomputes=sum(op.saved for op in inner))

    def encoder(self, inputs: tuple[int, int], stage: int) -> Iterator[_Operation]:
        """The blocks of a stage."""
        for number in range(self.topology.encoder_blocks[stage]):
            if self.topology.residual:
                yield from self.residual_block(inputs, stage)
            else:
                yield from self.block(inputs, stage, first=stage == number == 0)
            inputs = (stage, self.topology.features[stage])

    def block(
        self,
        inputs: tuple[int, int],
        stage: int,
        *,
        first: bool = False,
        concatenated: bool = False,
    ) -> list[_Operation]:
        """Convolution, norm and activation: the norm keeps its input, the activation
        its result.
        """
        out = self.map(stage)
        into = self.map(*inputs)
        kernel = self.topology.kernels[stage]
        weights = inputs[1] * self.topology.features[stage] * math.prod(kernel)
        convolution = self.convolution(
            into,
            out,
            weights,
            gradient=0 if first else into,
            saved=into if concatenated else 0,
        )
        keeps = _Operation(saved=out, gradient=out)
        return [convolution, keeps, keeps]

    def convolution(
        self, into: int, out: int, weights: int, *, gradient: int, saved: int = 0
    ) -> _Operation:
        """How oneDNN copies input and gradient (or the weights' gradient) into its
        layout; bf16 also transposes a sample.
        """
        if self.bytes == 4:
            return _Operation(saved, gradient, max(into + out, 4 * weights), weights)
        workspace = (into + out) * (self.batch + 1) // self.batch + 4 * weights
        return _Operation(saved + 2 * weights, gradient, workspace, weights)

    def residual_block(
        self, inputs: tuple[int, int], stage: int
    ) -> Iterator[_Operation]:
        """Two convolutions and the skip; the sum takes the place of the second norm's
        output.
        """
        before, width = inputs
        features = self.topology.features[stage]
        out = self.map(stage)
        identity = before == stage and width == features
        waiting = out if identity else self.map(*inputs)
        first, *others = self.block(inputs, stage)
        second, norm, activation = self.block((stage, features), stage)
        yield replace(
            first,
            workspace=first.workspace + (out if identity else 0),
            held=-waiting,
        )
        yield from others
        yield second
        yield _Operation(norm.saved, norm.gradient, held=waiting if identity else 0)
        if not identity:
            yield self.skip(inputs, stage)
        yield activation

    def skip(self, inputs: tuple[int, int], stage: int) -> _Operation:
        """Average pooling where strided (CPU autocast does that in fp32) and a
        projection where widths differ.
        """
        before, width = inputs
        features = self.topology.features[stage]
        out = self.map(stage)
        into = self.map(*inputs)
        pooled = self.map(stage, width) if before != stage else 0
        projected = features * width if width != features else 0
        cast = self.voxels[before] * width * 4 if pooled and self.bytes < 4 else 0
        saved = cast + (pooled + out if projected else 0)
        workspace = max(out, into) + pooled + cast
        return _Operation(saved, out, workspace, projected, held=into)

    def decoder(self, stage: int) -> Iterator[_Operation]:
        """Up-sampling, concatenation, blocks.

        Both halves of the concatenation's gradient live until the skip is reached.
        """
        out = self.map(stage)
        below = self.map(stage + 1)
        features = self.topology.features[stage]
        stride = self.topology.strides[stage + 1]
        weights = features * self.topology.features[stage + 1] * math.prod(stride)
        up = self.convolution(below, out, weights, gradient=below)
        yield replace(up, workspace=up.workspace + out)
        yield _Operation(held=2 * out)
        yield from self.block((stage, 2 * features), stage, concatenated=True)
        for _ in range(self.topology.decoder_blocks[stage] - 1):
            yield from self.block((stage, features), stage)

    def head(self, stage: int, outputs: int) -> _Operation:
        """A 1x1x1 convolution; its output's gradient has waited since the loss."""
        return _Operation(
            gradient=self.map(stage),
            workspace=self.map(stage),
            held=-self.map(stage, outputs),
        )

    def loss(self, stage: int, outputs: int) -> _Operation:
        """Keeps probabilities, indices and validity in fp32; its backward pass needs
        two more maps of all classes.
        """
        maps = 4 * outputs * self.voxels[stage]
        keeps = maps + 9 * self.voxels[stage]
        working = 2 * maps + PER_VOXEL * self.voxels[stage]
        return _Operation(
            saved=keeps, workspace=working, held=self.map(stage, outputs), loss=True
        )
