"""The plan: what was decided from a fingerprint.

Frozen data, one JSON file, editable by hand.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trivox.datasets.labels import LabelScheme
from trivox.errors import PlanError
from trivox.files import read_json, write_json
from trivox.planning.topology import Topology
from trivox.volumes.volume import Shape, Spacing

FORMAT_VERSION = 1

Scheme = Literal["ct", "z-score", "none", "rescale-0-1", "rgb-0-1"]


class Normalisation(BaseModel):
    """How one channel is brought to a common scale.

    ct: clip to [low, high], subtract mean, divide by std (of the training foreground);
    z-score: per image, inside the non-zero mask if `masked`; rescale-0-1: per image;
    rgb-0-1: divide by 255; none: as stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme
    masked: bool = False
    mean: float = 0.0
    std: float = 1.0
    low: float = 0.0
    high: float = 0.0


class MemoryForecast(BaseModel):
    """Forecast of the memory of one training step in bytes (torch allocations; the
    process itself comes on top).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: int
    optimizer: int
    gradients: int
    activations: int
    loss: int
    total: int


class Plan(BaseModel):
    """Everything downstream follows from this: preparation, network, windows.

    Sizes and spacings are `(z, y, x)`.

    axis_order: which canonical axis comes first, second, third in the network's grid (a
    coarse axis comes first). A 2-D plan has `patch_size[0] == 1` and kernels of 1 along
    it, so that slices need no code of their own. mask_channel: the network also sees
    where the image is not zero, as its last input.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    dataset: str
    task: str = "segmentation"
    dimension: Literal[2, 3] = 3
    channels: tuple[str, ...]
    labels: LabelScheme
    normalisations: tuple[Normalisation, ...]
    mask_channel: bool = False
    axis_order: tuple[int, int, int] = (0, 1, 2)
    spacing: Spacing
    median_shape: Shape
    patch_size: Shape
    batch_size: int = Field(ge=1)
    batch_dice: bool
    network: str
    topology: Topology
    network_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    memory: MemoryForecast
    reasons: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "Plan":
        if len(self.normalisations) != len(self.channels):
            raise ValueError("one normalisation is needed for each channel")
        if any(
            size % divisor
            for size, divisor in zip(
                self.patch_size, self.topology.divisor, strict=True
            )
        ):
            raise ValueError(
                f"patch_size {self.patch_size} must be a multiple of {self.topology.divisor}"
            )
        return self

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the network sees: the channels, and the mask if it has one."""
        return (*self.channels, *(["mask"] if self.mask_channel else []))

    @property
    def preparation_key(self) -> dict[str, Any]:
        """The part that decides how a stored case looks; a store made under another key
        is not reused.
        """
        fields = {
            "channels",
            "labels",
            "normalisations",
            "mask_channel",
            "axis_order",
            "spacing",
            "format_version",
        }
        return self.model_dump(mode="json", include=fields)


def read_plan(path: Path) -> Plan:
    """Read `plan.json`; raises `PlanError` in one line if it is not a valid plan."""
    content = read_json(path)
    version = content.get("format_version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise PlanError(
            f"{path}: plan format {version} is not {FORMAT_VERSION}; make the plan again with 'trivox plan'"
        )
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "plan"
        raise PlanError(
            f"{path}: {where}: {first['msg']}; correct it or run 'trivox plan' again"
        ) from error


def write_plan(plan: Plan, path: Path) -> None:
    """Write `plan.json` atomically."""
    write_json(path, plan.model_dump(mode="json"))
