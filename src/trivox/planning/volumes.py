"""The plan of a reconstruction: the grid about the isocentre, the HU window, the X-rays
that the network expects.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trivox.errors import PlanError
from trivox.files import read_json, write_json
from trivox.projection.attenuation import WATER_PER_MM
from trivox.projection.geometry import Grid
from trivox.volumes.volume import Shape, Spacing

FORMAT_VERSION = 1


class ReconstructionPlan(BaseModel):
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

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = FORMAT_VERSION
    dataset: str
    task: Literal["reconstruction"] = "reconstruction"
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
    def _possible(self) -> "ReconstructionPlan":
        if min(self.shape) < 1 or min(self.spacing) <= 0 or min(self.detector) < 1:
            raise ValueError("shape, spacing and detector must be above 0")
        if len(
            {
                fine / coarse
                for fine, coarse in zip(self.render_shape, self.shape, strict=True)
            }
        ) > 1 or any(
            fine % coarse
            for fine, coarse in zip(self.render_shape, self.shape, strict=True)
        ):
            raise ValueError(
                f"render_shape {self.render_shape} must be a multiple of shape {self.shape}"
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
    def preparation_key(self) -> dict[str, Any]:
        """The part that decides how a stored exam looks."""
        return self.model_dump(
            mode="json",
            include={"shape", "spacing", "render_shape", "detector", "format_version"},
        )


def read_reconstruction_plan(path: Path) -> ReconstructionPlan:
    """Read `plan.json` of a reconstruction; raises `PlanError` in one line if it is not
    one.
    """
    try:
        return ReconstructionPlan.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "plan"
        raise PlanError(
            f"{path}: {where}: {first['msg']}; no plan of a reconstruction"
        ) from error


def write_reconstruction_plan(plan: ReconstructionPlan, path: Path) -> None:
    """Write `plan.json` atomically."""
    write_json(path, plan.model_dump(mode="json"))


def describe_reconstruction_plan(
    plan: ReconstructionPlan,
) -> list[tuple[str, str, str]]:
    """What was decided, as (what, decision, reason) for people."""

    def by(values: tuple[float, ...]) -> str:
        return " x ".join(f"{value:.4g}" for value in values)

    reasons = plan.reasons
    rows = [
        ("network", plan.network, ""),
        ("grid", f"{by(plan.shape)} voxels about the isocentre", ""),
        ("spacing", f"{by(plan.spacing)} mm", reasons.get("spacing", "")),
        (
            "HU window",
            f"{plan.window[0]:g} to {plan.window[1]:g}",
            reasons.get("window", ""),
        ),
        (
            "X-rays",
            f"{by(plan.detector)} pixels of {plan.pixel_mm:.4g} mm",
            reasons.get("detector", ""),
        ),
        (
            "distances",
            f"source to isocentre {plan.sod_mm:g} mm, to detector {plan.sdd_mm:g} mm",
            "",
        ),
        (
            "rendered from",
            f"{by(plan.render_shape)} voxels",
            reasons.get("render_shape", ""),
        ),
        ("water", f"{plan.water_per_mm:g} / mm", ""),
        (
            "prior",
            f"{plan.prior}, {plan.prior_iterations} iterations"
            if plan.prior != "none"
            else "none",
            "",
        ),
        (
            "steps towards the X-rays",
            f"{plan.consistency_steps}, and {plan.final_steps} at prediction",
            "",
        ),
        ("batch size", str(plan.batch_size), ""),
    ]
    return [(what, decision, reason) for what, decision, reason in rows]
