"""The plan: what was decided from a fingerprint.

Frozen data, one JSON file, editable by hand.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from trivox.datasets.labels import LabelScheme
from trivox.errors import PlanError
from trivox.files import read_json
from trivox.planning.grid_rules import GridRules
from trivox.planning.topology import Topology
from trivox.schema import Frozen, Grown, validated

FORMAT_VERSION = 1
IMPOSSIBLE = (
    "no plan can be made so; check the data with 'trivox check', and the recipe"
)
ADVICE = "correct it or run 'trivox plan' again"

Size = Annotated[int, Field(ge=1, le=2**16)]
PlannedShape = tuple[Size, Size, Size]
"""Voxels `(z, y, x)`."""
Millimetres = Annotated[float, Field(ge=1e-4, le=1e4)]
PlannedSpacing = tuple[Millimetres, Millimetres, Millimetres]
"""Edges of a voxel `(z, y, x)`."""
Intensity = Annotated[float, Field(ge=-1e30, le=1e30)]
Memory = Annotated[int, Field(ge=0)]

Scheme = Literal["ct", "z-score", "none", "rescale-0-1", "rgb-0-1"]


class Normalisation(Frozen):
    """How one channel is brought to a common scale.

    ct: clip to [low, high], subtract mean, divide by std (of the training foreground);
    z-score: per image, inside the non-zero mask if `masked`; rescale-0-1: per image;
    rgb-0-1: divide by 255; none: as stored.
    """

    scheme: Scheme
    masked: bool = False
    mean: Intensity = 0.0
    std: Intensity = Field(1.0, gt=0)
    low: Intensity = 0.0
    high: Intensity = 0.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} lies above high {self.high:g}")
        return self


class MemoryForecast(Frozen):
    """Forecast of the memory of one training step in bytes (torch allocations; the
    process itself comes on top).
    """

    weights: Memory
    optimizer: Memory
    gradients: Memory
    activations: Memory
    loss: Memory
    total: Memory


class ImagePlan(Grown):
    """Everything that follows from the images alone: preparation, network, windows.

    Sizes and spacings are `(z, y, x)`.

    axis_order: which canonical axis comes first, second, third in the network's grid (a
    coarse axis comes first). A 2-D plan has `patch_size[0] == 1` and kernels of 1 along
    it, so that slices need no code of their own. mask_channel: the network also sees
    where the image is not zero, as its last input. grid: rules of resampling. warnings:
    what a reader has to know, as labels that are lost at this spacing.
    """

    later: ClassVar[tuple[str, ...]] = ("grid",)

    format_version: int = FORMAT_VERSION
    dataset: str
    task: str
    dimension: Literal[2, 3] = 3
    channels: tuple[str, ...] = Field(min_length=1)
    normalisations: tuple[Normalisation, ...]
    mask_channel: bool = False
    axis_order: tuple[int, int, int] = (0, 1, 2)
    spacing: PlannedSpacing
    grid: GridRules = GridRules()
    median_shape: PlannedShape
    patch_size: PlannedShape
    batch_size: int = Field(ge=1)
    network: str
    topology: Topology
    network_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    memory: MemoryForecast
    reasons: dict[str, str] = Field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.normalisations) != len(self.channels):
            raise ValueError("one normalisation is needed for each channel")
        if len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels {self.channels} occur more than once")
        if sorted(self.axis_order) != [0, 1, 2]:
            raise ValueError(
                f"axis_order {self.axis_order} must be 0, 1, 2 in any order"
            )
        divisor = self.topology.divisor
        if len(divisor) != 3:
            raise ValueError("topology needs kernels and strides along three axes")
        steps = zip(self.patch_size, divisor, strict=True)
        if any(size % step for size, step in steps):
            raise ValueError(
                f"patch_size {self.patch_size} must be a multiple of {divisor}"
            )
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the network sees: the channels, and the mask if it has one."""
        return (*self.channels, *(["mask"] if self.mask_channel else []))

    @property
    def outputs(self) -> int:
        """Channels of what the network gives: what it saw."""
        return len(self.inputs)

    @property
    def preparation_key(self) -> dict[str, object]:
        """The part that decides how a stored case looks; a store made under another key
        is not reused.
        """
        return self.model_dump(mode="json", include=self._preparation_fields())

    def _preparation_fields(self) -> set[str]:
        return {
            "channels",
            "normalisations",
            "mask_channel",
            "axis_order",
            "spacing",
            "grid",
            "format_version",
        }


class Plan(ImagePlan):
    """Everything downstream follows from this: what follows from the images, and the
    labels that are learnt.
    """

    later: ClassVar[tuple[str, ...]] = ("grid", "refines")

    labels: LabelScheme
    batch_dice: bool
    refines: bool = False
    """Whether the network also sees the labels that a coarser model found, a channel
    each, after its other inputs.
    """

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the network sees: of the image, and of a coarser model's answer."""
        found_before = sorted(self.labels.labels, key=self.labels.labels.__getitem__)
        names = (f"{name}, coarse" for name in found_before)
        return (*super().inputs, *(names if self.refines else ()))

    @property
    def outputs(self) -> int:
        """Channels of what the network gives: logits of the labels."""
        return self.labels.output_channels

    def _preparation_fields(self) -> set[str]:
        return {*super()._preparation_fields(), "labels"}


LABEL_FIELDS = set(Plan.model_fields) - set(ImagePlan.model_fields)


def read_plan(path: Path) -> Plan:
    """Read `plan.json`; raises `PlanError` in one line if it is not a valid plan."""
    content = _read(path)
    return validated(Plan, content, where=path, error=PlanError, advice=ADVICE)


def read_image_plan(path: Path) -> ImagePlan:
    """Read the `plan.json` of images without labels; raises `PlanError` as `read_plan`
    does.

    Version 0.1.0 wrote labels that no voxel had, which are left out.
    """
    content = {
        name: value for name, value in _read(path).items() if name not in LABEL_FIELDS
    }
    return validated(ImagePlan, content, where=path, error=PlanError, advice=ADVICE)


def _read(path: Path) -> dict[str, object]:
    content = read_json(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(content, dict) or version != FORMAT_VERSION:
        raise PlanError(
            f"{path}: plan format {version} is not {FORMAT_VERSION}; make the plan "
            "again with 'trivox plan'"
        )
    return content
