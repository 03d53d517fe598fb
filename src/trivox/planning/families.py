"""Network families as the planner sees them: widths, blocks, and how much feature map fits the memory they aim at.

`reference_3d` and `reference_2d` are elements of all convolution outputs of one sample (nnU-Net's proxy) at `target_gb`.
"""

from dataclasses import dataclass

from trivox.errors import RecipeError
from trivox.planning.topology import Sizes, Topology

RESENC_BLOCKS = (1, 3, 4, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6)


@dataclass(frozen=True)
class Family:
    """A network family; `coverage` caps a batch at that share of all training voxels (nnU-Net: 5 %)."""

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
    """Compare the proxy of one sample with the reference (ResEnc planners) rather than that of two of the batch."""

    def topology(self, kernels: tuple[Sizes, ...], strides: tuple[Sizes, ...]) -> Topology:
        """The family's topology for the stages that a patch allows."""
        stages = len(strides)
        most = self.max_features_2d if len(strides[0]) == 2 else self.max_features_3d
        return Topology(
            kernels=kernels,
            strides=strides,
            features=tuple(min(self.base_features * 2**stage, most) for stage in range(stages)),
            encoder_blocks=_first(self.encoder_blocks, stages),
            decoder_blocks=_first(self.decoder_blocks, stages - 1),
            residual=self.residual,
        )


def _first(blocks: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The first `count` entries, the last one repeated as needed."""
    return tuple(blocks[min(index, len(blocks) - 1)] for index in range(count))


def _resenc(reference_3d: float, reference_2d: float, target_gb: float) -> Family:
    return Family(
        reference_3d, reference_2d, target_gb, RESENC_BLOCKS, (1,), residual=True, coverage=1.0, per_sample=True
    )


FAMILIES: dict[str, Family] = {
    "nnunet-plain": Family(560e6, 85e6, 8, (2,), (2,), max_batch=512),
    "resenc-m": _resenc(680e6, 135e6, 8),
    "resenc-l": _resenc(2.1e9, 380e6, 24),
    "resenc-xl": _resenc(3.6e9, 560e6, 40),
    # For CPUs: 16 channels (oneDNN's vector width) and single blocks where voxels are many, width where they are few.
    "unet-small": Family(
        560e6, 85e6, 8, (1, 2), (1,), base_features=16, max_features_3d=256, max_features_2d=256, max_batch=16
    ),
    "unet-tiny": Family(
        560e6, 85e6, 8, (1,), (1,), base_features=16, max_features_3d=64, max_features_2d=64, max_batch=16
    ),
}


def family_of(network: str) -> Family:
    """The family of a network name; raises `RecipeError` listing the known ones."""
    if network not in FAMILIES:
        raise RecipeError(f"network '{network}' does not exist; choose one of {', '.join(FAMILIES)}")
    return FAMILIES[network]
