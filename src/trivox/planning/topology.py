"""The shape of a U-Net for a patch: kernels, strides and widths of each stage, and the
size of its feature maps.

Rules of nnU-Net (Isensee et al. 2021, get_pool_and_conv_props); pure arithmetic, no
network is built.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import Field, model_validator

from trivox.errors import PlanError
from trivox.planning.blueprint import MIN_FEATURE_MAP, Blueprint, Measured
from trivox.schema import Frozen

Sizes = tuple[int, ...]
Few = Annotated[int, Field(ge=1, le=64)]
"""Kernels, strides, blocks: a handful."""
AFew = Annotated[tuple[Few, ...], Field(min_length=2, max_length=3)]
Width = Annotated[int, Field(ge=1, le=2**14)]


class Topology(Frozen):
    """Stages from full resolution to the bottleneck; each entry of kernels and strides
    has one number an axis.

    exact: each patch axis must be a multiple of `divisor`; otherwise the network rounds
    odd sizes up by itself.
    """

    kernels: tuple[AFew, ...] = Field(min_length=1, max_length=12)
    strides: tuple[AFew, ...] = Field(min_length=1, max_length=12)
    features: tuple[Width, ...]
    encoder_blocks: tuple[Few, ...]
    decoder_blocks: tuple[Few, ...]
    residual: bool = False
    exact: bool = True
    measured: Measured | None = None

    @model_validator(mode="after")
    def _of_equal_depth(self) -> Self:
        stages = len(self.strides)
        for name in ("kernels", "features", "encoder_blocks"):
            if len(getattr(self, name)) != stages:
                raise ValueError(
                    f"{name} and strides need one entry a stage ({stages})"
                )
        if len(self.decoder_blocks) != stages - 1:
            raise ValueError(f"decoder_blocks needs {stages - 1} entries")
        if len({len(sizes) for sizes in (*self.kernels, *self.strides)}) > 1:
            raise ValueError(
                "kernels and strides need as many numbers as there are axes"
            )
        return self

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


def fitted_topology(
    blueprint: Blueprint, patch: Sequence[int], spacing: Sequence[float]
) -> tuple[Topology, Sizes]:
    """The topology of a family for `patch` voxels at `spacing` mm, and the patch padded
    to what it needs; raises `PlanError` for slices of a family that knows volumes only.
    """
    if blueprint.uniform:
        return _uniform(blueprint, patch)
    kernels, strides, padded = pooling(
        patch, spacing, smallest=blueprint.smallest, most=blueprint.stages
    )
    if blueprint.fixed_stages and blueprint.stages is not None:
        missing = blueprint.stages - len(strides)
        kernels += (kernels[-1],) * missing
        strides += ((1,) * len(patch),) * missing
    topology = staged_topology(blueprint, kernels, strides)
    return topology, padded if blueprint.exact else tuple(patch)


def network_reasons(blueprint: Blueprint, topology: Topology) -> dict[str, str]:
    """Why a topology of a family has these resolutions, strides and features."""
    count = f"{topology.stages} resolutions"
    if blueprint.uniform:
        resolutions = f"{count}, which the family always has"
        strides = "every axis is halved at every resolution: the family knows no other"
    else:
        resolutions = (
            f"{count}: an axis is halved while it keeps {blueprint.smallest} voxels"
        )
        if blueprint.stages is not None:
            resolutions += f", at most {blueprint.stages}"
        if blueprint.fixed_stages:
            resolutions = f"{count}, which the family always has"
        strides = "an axis is halved while its voxels are less than twice the finest"
    features = "doubled at each resolution up to the family's limit"
    if blueprint.widths:
        features = "the family's own"
    return {"topology": resolutions, "strides": strides, "features": features}


def _uniform(blueprint: Blueprint, patch: Sequence[int]) -> tuple[Topology, Sizes]:
    if len(patch) == 2:
        raise PlanError(
            "MONAI's networks are used in 3-D only; choose one of trivox's own "
            "for slices"
        )
    assert blueprint.stages is not None
    halvings = blueprint.stages - 1
    padded = [-(-size // 2**halvings) * 2**halvings for size in patch]
    # A norm needs more than one voxel at the coarsest stage.
    if max(padded) == 2**halvings:
        padded[-1] *= 2
    kernels = ((3, 3, 3),) * blueprint.stages
    strides = ((1, 1, 1), *((2, 2, 2),) * halvings)
    return staged_topology(blueprint, kernels, strides), tuple(padded)


def staged_topology(
    blueprint: Blueprint, kernels: tuple[Sizes, ...], strides: tuple[Sizes, ...]
) -> Topology:
    """The topology of a family for the stages that a patch allows."""
    stages = len(strides)
    return Topology(
        kernels=kernels,
        strides=strides,
        features=_widths(blueprint, stages, axes=len(strides[0])),
        encoder_blocks=_first(blueprint.encoder_blocks, stages),
        decoder_blocks=_first(blueprint.decoder_blocks, stages - 1),
        residual=blueprint.residual,
        exact=blueprint.exact,
        measured=blueprint.measured,
    )


def _widths(blueprint: Blueprint, stages: int, *, axes: int) -> tuple[int, ...]:
    if blueprint.widths:
        return _first(blueprint.widths, stages)
    most = blueprint.max_features_2d if axes == 2 else blueprint.max_features_3d
    return tuple(min(blueprint.base_features * 2**s, most) for s in range(stages))


def _first(entries: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The first `count` entries, the last one repeated as needed."""
    last = len(entries) - 1
    return tuple(entries[min(index, last)] for index in range(count))


def as_slices(topology: Topology) -> Topology:
    """A 2-D topology as 3-D kernels of size 1 along z: slices are volumes one voxel
    thick.
    """
    flat = {
        "kernels": tuple((1, *kernel) for kernel in topology.kernels),
        "strides": tuple((1, *stride) for stride in topology.strides),
    }
    return topology.model_copy(update=flat)


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
    size = list(patch)
    edge = list(spacing)
    kernel = [1] * len(patch)
    kernels: list[Sizes] = []
    strides: list[Sizes] = [(1,) * len(patch)]
    while (most is None or len(strides) < most) and (
        pooled := _axes_to_pool(size, edge, smallest)
    ):
        for axis in axes:
            if edge[axis] / min(edge) < 2:
                kernel[axis] = 3
        for axis in pooled:
            size[axis] = math.ceil(size[axis] / 2)
            edge[axis] *= 2
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in pooled else 1 for axis in axes))
    # The bottleneck always sees all directions.
    kernels.append((3,) * len(patch))
    divisor = [math.prod(along) for along in zip(*strides, strict=True)]
    padded = tuple(
        math.ceil(voxels / step) * step
        for voxels, step in zip(patch, divisor, strict=True)
    )
    return tuple(kernels), tuple(strides), padded


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
            f"patch {tuple(patch)} is too small: no axis can be halved; use at least "
            "8 voxels along two axes"
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
    voxels = [math.prod(size) for size in stage_sizes(patch, topology.strides)]
    maps = outputs * voxels[0]
    for stage, width in enumerate(topology.features):
        maps += _maps_of_stage(topology, stage) * width * voxels[stage]
    return maps


def _maps_of_stage(topology: Topology, stage: int) -> int:
    """Feature maps of a stage: of the encoder's blocks, of the transposed convolution
    and of the decoder's blocks.
    """
    maps = topology.encoder_blocks[stage]
    if topology.residual:
        # Two a block, and the stem at full resolution or the projected skip below.
        maps = 2 * maps + 1
    if stage < topology.stages - 1:
        maps += topology.decoder_blocks[stage] + 1
    return maps
