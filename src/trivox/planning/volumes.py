"""The plan of volumes from X-rays: the grid about the isocentre, the HU window, the
X-rays that the network expects.
"""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from trivox.errors import PlanError
from trivox.files import read_json
from trivox.projection.attenuation import WATER_PER_MM
from trivox.projection.geometry import Grid
from trivox.schema import Frozen, validated
from trivox.volumes.volume import Shape, Spacing

FORMAT_VERSION = 1


class VolumePlan(Frozen):
    """Sizes and spacings are `(z, y, x)`; volumes lie along RAS with the isocentre in
    their middle.

    render_shape: of the finer grid that X-rays are rendered from, a multiple of
    `shape`: what the network cannot resolve is in them, as in real ones; window: HU
    seen as 0 to 1; detector: rows and columns that stored X-rays are binned to, and
    rendered ones have; prior: algebraic reconstruction that the network corrects;
    consistency_steps: towards the X-rays, at its end; final_steps: more of them at
    prediction; pixel_mm: of rendered ones; sod_mm, sdd_mm: distances of rendered ones
    before jitter.
    """

    format_version: int = FORMAT_VERSION
    dataset: str
    task: str
    shape: Shape
    spacing: Spacing
    render_shape: Shape
    window: tuple[float, float] = (-1024.0, 1476.0)
    water_per_mm: float = Field(WATER_PER_MM, gt=0)
    detector: tuple[int, int]
    pixel_mm: float = Field(gt=0)
    sod_mm: float = Field(gt=0)
    sdd_mm: float = Field(gt=0)
    network: str
    network_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    prior: Literal["sirt", "none"] = "sirt"
    prior_iterations: int = Field(10, ge=1)
    consistency_steps: int = Field(1, ge=0)
    final_steps: int = Field(4, ge=0)
    batch_size: int = Field(ge=1)
    reasons: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if min(self.shape) < 1 or min(self.spacing) <= 0 or min(self.detector) < 1:
            raise ValueError("shape, spacing and detector must be above 0")
        factor = self.render_shape[0] // self.shape[0]
        if self.render_shape != tuple(factor * size for size in self.shape):
            raise ValueError(
                f"render_shape {self.render_shape} must be a multiple of shape "
                f"{self.shape}"
            )
        if self.window[0] >= self.window[1]:
            raise ValueError("window needs its lower end first")
        if self.sod_mm >= self.sdd_mm:
            raise ValueError(
                "the isocentre lies between source and detector: sod_mm < sdd_mm"
            )
        return self

    @property
    def grid(self) -> Grid:
        """The voxels that the network fills."""
        return Grid(self.shape, self.spacing)

    @property
    def render_grid(self) -> Grid:
        """The voxels that X-rays are rendered from."""
        return self.grid.resized(self.render_shape)

    @property
    def preparation_key(self) -> dict[str, object]:
        """The part that decides how a stored exam looks."""
        return self.model_dump(
            mode="json",
            include={
                "shape",
                "spacing",
                "render_shape",
                "detector",
                "water_per_mm",
                "format_version",
            },
        )


def read_volume_plan(path: Path) -> VolumePlan:
    """Read the `plan.json` of volumes from X-rays; raises `PlanError` in one line if it
    is not one.
    """
    return validated(
        VolumePlan,
        read_json(path),
        where=path,
        error=PlanError,
        advice="no plan of volumes from X-rays; make it again with 'trivox plan'",
    )
