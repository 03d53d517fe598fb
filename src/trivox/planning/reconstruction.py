"""The plan of a reconstruction: the grid about the isocentre, the HU window, the X-rays that the network expects."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trivox.errors import PlanError
from trivox.files import read_json, write_json
from trivox.projection import WATER_PER_MM, Grid
from trivox.volumes import Shape, Spacing

FORMAT_VERSION = 1


class ReconstructionPlan(BaseModel):
    """Sizes and spacings are `(z, y, x)`; volumes lie along RAS with the isocentre in their middle.

    window: HU seen as 0 to 1; detector: rows and columns that stored X-rays are binned to, and rendered ones have;
    pixel_mm: of rendered ones; sod_mm, sdd_mm: distances of rendered ones before jitter.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    dataset: str
    task: Literal["reconstruction"] = "reconstruction"
    shape: Shape
    spacing: Spacing
    window: tuple[float, float] = (-1024.0, 1476.0)
    water_per_mm: float = Field(WATER_PER_MM, gt=0)
    detector: tuple[int, int]
    pixel_mm: float = Field(gt=0)
    sod_mm: float = Field(gt=0)
    sdd_mm: float = Field(gt=0)
    network: str
    network_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    batch_size: int = Field(ge=1)
    reasons: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _possible(self) -> "ReconstructionPlan":
        if min(self.shape) < 1 or min(self.spacing) <= 0 or min(self.detector) < 1:
            raise ValueError("shape, spacing and detector must be above 0")
        if self.window[0] >= self.window[1]:
            raise ValueError("window needs its lower end first")
        if self.sod_mm >= self.sdd_mm:
            raise ValueError("the isocentre lies between source and detector: sod_mm < sdd_mm")
        return self

    @property
    def grid(self) -> Grid:
        """The voxels that the network fills."""
        return Grid(self.shape, self.spacing)


def read_reconstruction_plan(path: Path) -> ReconstructionPlan:
    """Read `plan.json` of a reconstruction; raises `PlanError` in one line if it is not one."""
    try:
        return ReconstructionPlan.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "plan"
        raise PlanError(f"{path}: {where}: {first['msg']}; no plan of a reconstruction") from error


def write_reconstruction_plan(plan: ReconstructionPlan, path: Path) -> None:
    """Write `plan.json` atomically."""
    write_json(path, plan.model_dump(mode="json"))
