"""What the planner knows of a network family: widths, blocks, and how much feature map
fits the memory that the family aims at. Data alone; nothing heavy is imported here.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt, Le

MIN_FEATURE_MAP = 4
"""An axis is halved only while it stays at least this many voxels long."""


Bytes = Annotated[float, Gt(0), Le(1e9)]


@dataclass(frozen=True)
class Measured:
    """Cost of a network whose layers a topology does not describe: constants of the
    forecast, which tests derive from the networks.

    bytes_per_voxel: of the fullest moment of a training step, for each voxel of the
    batch, beside weights, optimizer, gradients and loss: in fp32, and under 16-bit
    autocast; gpu_bytes_per_voxel: the same on a GPU, where that differs.
    """

    __pydantic_config__: ClassVar[dict[str, str | bool]] = {
        "extra": "forbid",
        "allow_inf_nan": False,
    }

    parameters: Annotated[int, Ge(1)]
    bytes_per_voxel: tuple[Bytes, Bytes]
    gpu_bytes_per_voxel: tuple[Bytes, Bytes] | None = None

    def on(self, *, gpu: bool) -> tuple[Bytes, Bytes]:
        """Bytes a voxel in fp32 and in 16 bits, on a GPU or a CPU."""
        if gpu and self.gpu_bytes_per_voxel is not None:
            return self.gpu_bytes_per_voxel
        return self.bytes_per_voxel


@dataclass(frozen=True)
class Blueprint:
    """How the networks of a family are laid out.

    `reference_3d` and `reference_2d` are elements of all convolution outputs of one
    sample (nnU-Net's proxy) at `target_gb`; `coverage` caps a batch at that share of
    all training voxels (nnU-Net: 5 %).
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


def measured_reference(target_gb: float) -> float:
    """The reference of a network of measured cost: what two samples may keep of nine
    tenths of the target, 8 bytes for each element of the proxy.
    """
    return 0.9 * target_gb * 1e9 / 16
