"""The shape of a U-Net for a patch: kernels, strides and widths of each stage, and the
size of its feature maps.

Rules of nnU-Net (Isensee et al. 2021, get_pool_and_conv_props); pure arithmetic, no
network is built.
"""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from trivox.errors import PlanError

MIN_FEATURE_MAP = 4
"""An axis is halved only while it stays at least this many voxels long."""

Sizes = tuple[int, ...]


class Measured(BaseModel):
    """Cost of a network whose layers a topology does not describe, measured once on a
    CPU and held by tests.

    bytes_per_voxel: of the fullest moment of a training step, for each voxel of the
    batch, beside weights, optimizer, gradients and loss: in fp32, and under 16-bit
    autocast.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: int
    bytes_per_voxel: tuple[float, float]


class Topology(BaseModel):
    """Stages from full resolution to the bottleneck; each entry of kernels and strides
    has one number an axis.

    exact: each patch axis must be a multiple of `divisor`; otherwise the network rounds
    odd sizes up by itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernels: tuple[Sizes, ...]
    strides: tuple[Sizes, ...]
    features: tuple[int, ...]
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    residual: bool = False
    exact: bool = True
    measured: Measured | None = None

    @property
    def stages(self) -> int:
        """Number of resolutions."""
        return len(self.strides)

    @property
    def divisor(self) -> Sizes:
        """What each patch axis must be a multiple of."""
        return self.reduction if self.exact else tuple(1 for _ in self.strides[0])

    @property
    def reduction(self) -> Sizes:
        """How many voxels along each axis become one at the coarsest stage."""
        return tuple(math.prod(along) for along in zip(*self.strides, strict=True))


def pooling(
    patch: Sequence[int],
    spacing: Sequence[float],
    *,
    smallest: int = MIN_FEATURE_MAP,
    most: int | None = None,
) -> tuple[tuple[Sizes, ...], tuple[Sizes, ...], Sizes]:
    """Kernels and strides a stage for `patch` voxels at `spacing` mm, and the patch
    padded to their divisor.

    smallest: length that an axis keeps at least; most: largest number of stages.
    """
    axes = range(len(patch))
    size, edge = list(patch), list(spacing)
    kernel = [1] * len(patch)
    kernels: list[Sizes] = []
    strides: list[Sizes] = [tuple(1 for _ in axes)]
    while (most is None or len(strides) < most) and (
        pooled := _axes_to_pool(size, edge, smallest)
    ):
        kernel = [
            3 if k == 3 or edge[d] / min(edge) < 2 else 1 for d, k in enumerate(kernel)
        ]
        for axis in pooled:
            size[axis], edge[axis] = math.ceil(size[axis] / 2), edge[axis] * 2
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in axes))
    kernels.append(tuple(3 for _ in axes))  # the bottleneck always sees all directions
    divisor = [math.prod(stride[axis] for stride in strides) for axis in axes]
    return (
        tuple(kernels),
        tuple(strides),
        tuple(math.ceil(patch[a] / divisor[a]) * divisor[a] for a in axes),
    )


def _axes_to_pool(
    size: Sequence[int], spacing: Sequence[float], smallest: int
) -> list[int]:
    """Axes long enough to halve whose voxels are less than twice the finest of them."""
    long_enough = [axis for axis, voxels in enumerate(size) if voxels >= 2 * smallest]
    if not long_enough:
        return []
    finest = min(spacing[axis] for axis in long_enough)
    chosen = [axis for axis in long_enough if spacing[axis] / finest < 2]
    if len(chosen) == 1 and size[chosen[0]] < 3 * smallest:
        return []
    return chosen


def require_halving(topology: Topology, patch: Sequence[int]) -> None:
    """Raise `PlanError` if a patch is so small that the network would work at one
    resolution only.
    """
    if max(topology.reduction) == 1:
        raise PlanError(
            f"patch {tuple(patch)} is too small: no axis can be halved; use at least 8 voxels along two axes"
        )


def stage_sizes(patch: Sequence[int], strides: Sequence[Sizes]) -> list[Sizes]:
    """Feature-map size at each stage for a patch that the strides divide."""
    sizes: list[Sizes] = []
    size = tuple(patch)
    for stride in strides:
        size = tuple(voxels // step for voxels, step in zip(size, stride, strict=True))
        sizes.append(size)
    return sizes


def feature_map_elements(topology: Topology, patch: Sequence[int], outputs: int) -> int:
    """Elements in all convolution outputs for one sample, without deep-supervision
    heads: nnU-Net's cost proxy.

    For measured networks: half the fp32 numbers alive at the fullest moment, since a
    norm or activation keeps as much.
    """
    if topology.measured is not None:
        return round(topology.measured.bytes_per_voxel[0] / 8 * math.prod(patch))
    sizes = stage_sizes(patch, topology.strides)
    total = 0
    for stage, (size, width, blocks) in enumerate(
        zip(sizes, topology.features, topology.encoder_blocks, strict=True)
    ):
        maps = blocks * (2 if topology.residual else 1)
        if (
            topology.residual
        ):  # the stem at full resolution, a projected skip where width or size change
            maps += 1
        total += maps * width * math.prod(size)
        if (
            stage < topology.stages - 1
        ):  # decoder: transposed convolution and its blocks
            total += (topology.decoder_blocks[stage] + 1) * width * math.prod(size)
    return total + outputs * math.prod(sizes[0])
