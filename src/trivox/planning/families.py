"""Network families as the planner sees them: widths, blocks, and how much feature map
fits the memory they aim at.

`reference_3d` and `reference_2d` are elements of all convolution outputs of one sample
(nnU-Net's proxy) at `target_gb`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trivox.errors import PlanError, RecipeError
from trivox.planning.topology import (
    MIN_FEATURE_MAP,
    Measured,
    Sizes,
    Topology,
    pooling,
)

RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6)


@dataclass(frozen=True)
class Family:
    """A network family; `coverage` caps a batch at that share of all training voxels
    (nnU-Net: 5 %).
    """

    reference_3d: float
    reference_2d: float
    target_gb: float
    encoder_blocks: tuple[int, ...]
    decoder_blocks: tuple[int, ...]
    residual: bool = False
    base_features: int = 32
    max_features_3d: int = 320
    max_features_2d: int = 512
    coverage: float = 0.05
    max_batch: int = 64
    per_sample: bool = False
    """Compare the proxy of one sample with the reference (ResEnc planners) rather than
    that of two of the batch.
    """
    widths: tuple[int, ...] = ()
    """Features of each stage, instead of doubling the base."""
    stages: int | None = None
    """Stages at most; a family with `fixed_stages` always has so many."""
    fixed_stages: bool = False
    smallest: int = MIN_FEATURE_MAP
    """Length that an axis keeps at least on the way down."""
    uniform: bool = False
    """Halve every axis at every stage, whatever its length: foreign networks know
    nothing else.
    """
    exact: bool = True
    measured: Measured | None = None

    def shape(
        self, patch: Sequence[int], spacing: Sequence[float]
    ) -> tuple[Topology, Sizes]:
        """The topology for `patch` voxels at `spacing` mm, and the patch padded to what
        it needs.
        """
        if self.uniform:
            return self._uniform_shape(patch)
        kernels, strides, padded = pooling(
            patch, spacing, smallest=self.smallest, most=self.stages
        )
        if self.fixed_stages and self.stages is not None:
            missing = self.stages - len(strides)
            kernels += (kernels[-1],) * missing
            strides += ((1,) * len(patch),) * missing
        return self.topology(kernels, strides), padded if self.exact else tuple(patch)

    def _uniform_shape(self, patch: Sequence[int]) -> tuple[Topology, Sizes]:
        if len(patch) == 2:
            raise PlanError(
                "MONAI's networks are used in 3-D only; choose one of trivox's own for slices"
            )
        assert self.stages is not None
        halvings = self.stages - 1
        padded = [-(-size // 2**halvings) * 2**halvings for size in patch]
        if (
            max(padded) == 2**halvings
        ):  # a norm needs more than one voxel at the coarsest stage
            padded[-1] *= 2
        topology = self.topology(
            ((3, 3, 3),) * self.stages, ((1, 1, 1), *((2, 2, 2),) * halvings)
        )
        return topology, tuple(padded)

    def topology(
        self, kernels: tuple[Sizes, ...], strides: tuple[Sizes, ...]
    ) -> Topology:
        """The family's topology for the stages that a patch allows."""
        stages = len(strides)
        most = self.max_features_2d if len(strides[0]) == 2 else self.max_features_3d
        return Topology(
            kernels=kernels,
            strides=strides,
            features=_first(self.widths, stages)
            or tuple(
                min(self.base_features * 2**stage, most) for stage in range(stages)
            ),
            encoder_blocks=_first(self.encoder_blocks, stages),
            decoder_blocks=_first(self.decoder_blocks, stages - 1),
            residual=self.residual,
            exact=self.exact,
            measured=self.measured,
        )


def _first(blocks: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The first `count` entries, the last one repeated as needed."""
    return tuple(
        blocks[min(index, len(blocks) - 1)] for index in range(count if blocks else 0)
    )


def _resenc(reference_3d: float, reference_2d: float, target_gb: float) -> Family:
    return Family(
        reference_3d,
        reference_2d,
        target_gb,
        RESENC_BLOCKS,
        (1,),
        residual=True,
        coverage=1.0,
        per_sample=True,
    )


def _hybrid(
    target_gb: float,
    widths: tuple[int, ...],
    encoder_blocks: tuple[int, ...],
    parameters: int,
    bytes_per_voxel: tuple[float, float],
) -> Family:
    """Five stages of its own widths; the reference is what two samples may keep of nine
    tenths of the target.
    """
    reference = 0.9 * target_gb * 1e9 / 16
    return Family(
        reference,
        reference / 6,
        target_gb,
        encoder_blocks,
        (1,),
        widths=widths,
        stages=5,
        fixed_stages=True,
        smallest=2,
        exact=False,
        max_batch=16,
        measured=Measured(parameters=parameters, bytes_per_voxel=bytes_per_voxel),
    )


def _rival(
    target_gb: float, stages: int, parameters: int, bytes_per_voxel: tuple[float, float]
) -> Family:
    """A network of MONAI's: its widths are its own, only the number of halvings matters
    here.
    """
    reference = 0.9 * target_gb * 1e9 / 16
    return Family(
        reference,
        reference / 6,
        target_gb,
        (1,),
        (1,),
        stages=stages,
        uniform=True,
        max_batch=16,
        measured=Measured(parameters=parameters, bytes_per_voxel=bytes_per_voxel),
    )


FAMILIES: dict[str, Family] = {
    "hybrid-lite": _hybrid(
        8, (16, 32, 64, 96, 432), (1, 1, 2, 2, 1), 16_096_858, (1660, 1065)
    ),
    "hybrid-base": _hybrid(
        16, (32, 64, 128, 192, 480), (1, 2, 2, 2, 1), 19_964_000, (3810, 2165)
    ),
    "hybrid-large": _hybrid(
        24, (48, 96, 192, 336, 672), (1, 2, 3, 3, 1), 44_200_000, (6350, 3450)
    ),
    "nnunet-plain": Family(560e6, 85e6, 8, (2,), (2,), max_batch=512),
    "resenc-m": _resenc(680e6, 135e6, 8),
    "resenc-l": _resenc(2.1e9, 380e6, 24),
    "resenc-xl": _resenc(3.6e9, 560e6, 40),
    "nvidia-unet": Family(
        1120e6,
        170e6,
        16,
        (2,),
        (2,),
        widths=(64, 96, 128, 192, 256, 384, 512),
        stages=7,
        smallest=2,
        max_batch=64,
    ),
    "segresnet-ds": _rival(16, 5, 87_169_292, (2260, 1850)),
    "swin-unetr-v2": _rival(24, 6, 72_767_733, (7180, 6900)),
    "mednext-s": _rival(24, 5, 5_555_935, (7780, 4310)),
    "mednext-b": _rival(24, 5, 10_530_000, (8380, 4640)),
    "mednext-l": _rival(40, 5, 61_729_679, (16800, 9400)),
    # For CPUs: 16 channels (oneDNN's vector width) and single blocks where voxels are
    # many, width where they are few.
    "unet-small": Family(
        560e6,
        85e6,
        8,
        (1, 2),
        (1,),
        base_features=16,
        max_features_3d=256,
        max_features_2d=256,
        max_batch=16,
    ),
    "unet-tiny": Family(
        560e6,
        85e6,
        8,
        (1,),
        (1,),
        base_features=16,
        max_features_3d=64,
        max_features_2d=64,
        max_batch=16,
    ),
}


def family_of(network: str) -> Family:
    """The family of a network name; raises `RecipeError` listing the known ones."""
    if network not in FAMILIES:
        raise RecipeError(
            f"network '{network}' does not exist; choose one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[network]
