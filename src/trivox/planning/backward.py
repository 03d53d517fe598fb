"""What each operation of a U-Net's training step keeps and needs, on paper."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from trivox.planning.topology import Topology, stage_sizes

PER_VOXEL = 16
"""Bytes a voxel of what a loss computes besides maps of all classes: maxima, sums,
picked probabilities.
"""


@dataclass(frozen=True)
class Operation:
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


class Layers:
    """The operations of a U-Net in forward order; maps are in bytes of the whole batch."""

    def __init__(
        self,
        topology: Topology,
        patch: Sequence[int],
        batch: int,
        activation_bytes: int,
        *,
        recompute: bool = False,
        gpu: bool = False,
    ) -> None:
        self.topology = topology
        self.batch = batch
        self.bytes = activation_bytes
        self.recompute = recompute
        self.gpu = gpu
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
    ) -> Iterator[Operation]:
        """From the input to the losses."""
        topology = self.topology
        coarsest = topology.stages - 1
        if self.bytes < 4:
            yield Operation(saved=self.map(0, channels))  # the cast image
        inputs = (0, channels)  # stage and channels of what comes in
        if topology.residual:
            yield from self.unit(self.block(inputs, 0, first=True))
            inputs = (0, topology.features[0])
        for stage in range(topology.stages):
            yield from self.unit(self.encoder(inputs, stage))
            inputs = (stage, topology.features[stage])
            # The skip's gradient is added: a new sum, and the concatenation's may go.
            if stage < coarsest:
                yield Operation(gradient=self.map(stage), held=-2 * self.map(stage))
        scales = self.scales(deep_supervision=deep_supervision)
        for stage in reversed(range(coarsest)):
            yield from self.unit(self.decoder(stage))
            if stage in scales:
                yield self.head(stage, outputs)
        for stage in scales if len(scales) == 1 else scales[:-1]:
            yield self.loss(stage, outputs)

    def unit(self, operations: Iterable[Operation]) -> Iterator[Operation]:
        """A stage; under gradient checkpointing only its result outlives the forward
        pass.
        """
        *inner, last = operations
        if not self.recompute:
            yield from (*inner, last)
            return
        yield from (replace(op, deferred=True) for op in inner)
        yield replace(last, recomputes=sum(op.saved for op in inner))

    def encoder(self, inputs: tuple[int, int], stage: int) -> Iterator[Operation]:
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
    ) -> list[Operation]:
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
        keeps = Operation(saved=out, gradient=out)
        return [convolution, self.norm(out), keeps]

    def norm(self, out: int) -> Operation:
        """On a GPU in 16 bits sample by sample, whose gradients are joined."""
        joined = out if self.gpu and self.bytes < 4 and self.batch > 1 else 0
        return Operation(saved=out, gradient=out, workspace=joined)

    def convolution(
        self, into: int, out: int, weights: int, *, gradient: int, saved: int = 0
    ) -> Operation:
        """How oneDNN copies input and gradient (or the weights' gradient) into its
        layout; bf16 also transposes a sample. A GPU needs the cast weights and their
        gradient.
        """
        if self.gpu:
            cast = 2 * weights if self.bytes < 4 else 0
            return Operation(saved + cast, gradient, cast, weights)
        if self.bytes == 4:
            return Operation(saved, gradient, max(into + out, 4 * weights), weights)
        workspace = (into + out) * (self.batch + 1) // self.batch + 4 * weights
        return Operation(saved + 2 * weights, gradient, workspace, weights)

    def residual_block(
        self, inputs: tuple[int, int], stage: int
    ) -> Iterator[Operation]:
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
        yield Operation(norm.saved, norm.gradient, held=waiting if identity else 0)
        if not identity:
            yield self.skip(inputs, stage)
        yield activation

    def skip(self, inputs: tuple[int, int], stage: int) -> Operation:
        """Average pooling where strided (CPU autocast does that in fp32) and a
        projection where widths differ.
        """
        before, width = inputs
        features = self.topology.features[stage]
        out = self.map(stage)
        into = self.map(*inputs)
        pooled = self.map(stage, width) if before != stage else 0
        projected = features * width if width != features else 0
        casts = pooled and self.bytes < 4 and not self.gpu
        cast = self.voxels[before] * width * 4 if casts else 0
        saved = cast + (pooled + out if projected else 0)
        workspace = max(out, into) + pooled + cast
        return Operation(saved, out, workspace, projected, held=into)

    def decoder(self, stage: int) -> Iterator[Operation]:
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
        yield Operation(held=2 * out)
        yield from self.block((stage, 2 * features), stage, concatenated=True)
        for _ in range(self.topology.decoder_blocks[stage] - 1):
            yield from self.block((stage, features), stage)

    def head(self, stage: int, outputs: int) -> Operation:
        """A 1x1x1 convolution; its output's gradient has waited since the loss."""
        return Operation(
            gradient=self.map(stage),
            workspace=self.map(stage),
            held=-self.map(stage, outputs),
        )

    def loss(self, stage: int, outputs: int) -> Operation:
        """Keeps probabilities, indices and validity in fp32; its backward pass needs
        two more maps of all classes.
        """
        maps = 4 * outputs * self.voxels[stage]
        keeps = maps + 9 * self.voxels[stage]
        working = 2 * maps + PER_VOXEL * self.voxels[stage]
        return Operation(
            saved=keeps, workspace=working, held=self.map(stage, outputs), loss=True
        )
