"""What the numbers mean: the standard convention and the three of the BraTS challenges,
each with its parameters.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, ValidationError

from trivox.errors import RecipeError
from trivox.evaluation.conventions.cases import (
    DEFAULT_TOLERANCE_MM,
    IfMissed,
    Region,
    evaluate_case,
    regions_of,
    volume_metrics,
)
from trivox.evaluation.conventions.instances import instance_metrics
from trivox.evaluation.conventions.legacy import PENALTY_MM, legacy_metrics
from trivox.evaluation.conventions.lesions import lesion_wise_metrics
from trivox.evaluation.metrics.content import ConventionBlock, TargetMetrics
from trivox.evaluation.metrics.statistics import CONVENTION as INTERVALS
from trivox.schema import Frozen, first_complaint
from trivox.volumes.geometry import Lattice, voxel_mm3
from trivox.volumes.volume import Array

Limit = Annotated[float, Field(ge=0, le=1e5)]
"""mm; no patient is as large as the largest."""

COMMON = {
    "ignored": "voxels that the reference marks as ignored are removed from both masks",
    "volume_error": "prediction minus reference",
    "summary": "statistics over cases; std with n - 1; 'mean' first averages the "
    f"labels within each case; {INTERVALS}",
}


class Convention(Frozen, ABC):
    """How a case is measured; fields are its parameters, `ranked` the metrics that
    models are ranked by.
    """

    name: ClassVar[str]
    ranked: ClassVar[tuple[str, ...]] = ("dice", "hd95_mm")
    meaning: ClassVar[Mapping[str, str]]
    needs_1_mm: ClassVar[bool] = False
    """Whether it takes voxels for mm somewhere."""

    @abstractmethod
    def evaluate(
        self,
        prediction: Array,
        reference: Array,
        *,
        spacing: Lattice,
        targets: Mapping[str, Sequence[int]],
    ) -> dict[str, TargetMetrics]:
        """Metrics of each target of two maps of label indices `(z, y, x)`; spacing: mm
        `(z, y, x)`, or the steps of a sheared grid.

        targets: name -> indices that belong to it. Raises `GeometryError` if the shapes
        differ.
        """

    def describe(self) -> ConventionBlock:
        """The `convention` block of metrics.json: name, parameters, and each rule in
        words.
        """
        return {
            "name": self.name,
            **self.model_dump(mode="json"),
            **self.meaning,
            **COMMON,
        }


class Standard(Convention):
    """Each case counts only where it says something; see `evaluate_case`."""

    name = "trivox"
    meaning: ClassVar[Mapping[str, str]] = {
        "dice": "2 TP / (2 TP + FP + FN) of hard masks, per case",
        "hd95_mm": "voxel surfaces (voxels with a face neighbour outside); larger of "
        "the two directed 95th percentiles",
        "assd_mm": "voxel surfaces; mean distance over the elements of both surfaces",
        "nsd": "mesh surfaces (marching-cubes elements weighted by area); share of "
        "both within the tolerance",
        "nsd_voxel": "the same on voxel surfaces",
        "empty_both": "all overlap and distance metrics null (not counted); the case "
        "adds to n_empty",
        "empty_one": "dice, iou, nsd 0; hd95_mm, assd_mm as hd95_if_missed says (null: "
        "not counted; diagonal: that of the image); the case adds to n_missed "
        "(prediction empty) or n_spurious (reference empty)",
    }

    tolerance_mm: Limit | dict[str, Limit] = DEFAULT_TOLERANCE_MM
    hd95_if_missed: IfMissed = "null"

    def evaluate(
        self,
        prediction: Array,
        reference: Array,
        *,
        spacing: Lattice,
        targets: Mapping[str, Sequence[int]],
    ) -> dict[str, TargetMetrics]:
        """`evaluate_case` with these parameters."""
        return evaluate_case(
            prediction,
            reference,
            spacing=spacing,
            targets=targets,
            tolerance_mm=self.tolerance_mm,
            hd95_if_missed=self.hd95_if_missed,
        )


class Challenge(Convention):
    """A convention that measures each region by itself, whatever the image around."""

    @abstractmethod
    def measure(self, region: Region, spacing: Lattice) -> TargetMetrics:
        """Metrics of one region."""

    def evaluate(
        self,
        prediction: Array,
        reference: Array,
        *,
        spacing: Lattice,
        targets: Mapping[str, Sequence[int]],
    ) -> dict[str, TargetMetrics]:
        """`measure` of each target, and its volumes."""
        voxel_ml = voxel_mm3(spacing) / 1000
        result: dict[str, TargetMetrics] = {}
        for name, region in regions_of(prediction, reference, targets=targets):
            result[name] = {
                **self.measure(region, spacing),
                **volume_metrics(region.counts, voxel_ml),
            }
        return result


class Legacy(Challenge):
    """BraTS until 2022: whole regions, with a value for every case."""

    name = "brats-legacy"
    meaning: ClassVar[Mapping[str, str]] = {
        "dice": "of the whole region; 1 where both masks are empty, 0 where one is",
        "hd95_mm": "voxel surfaces, 95th percentile of both directions pooled (MedPy, "
        "nnU-Net); 0 where both masks are empty, penalty_mm where one is",
        "sensitivity": "1 where both masks are empty, 0 where the reference is",
    }

    penalty_mm: Limit = PENALTY_MM

    def measure(self, region: Region, spacing: Lattice) -> TargetMetrics:
        """Metrics of one region."""
        return legacy_metrics(region, spacing=spacing, penalty_mm=self.penalty_mm)


class LesionWise(Challenge):
    """BraTS 2023 and 2024.

    Gliomas (also SSA, PED): the defaults; MEN: dilation 1; MET: dilation 1,
    min_lesion_mm3 2.
    """

    name = "brats-lesion-wise"
    meaning: ClassVar[Mapping[str, str]] = {
        "dice": "sum over counted lesions / (counted lesions + spurious components); a "
        "missed lesion has 0",
        "hd95_mm": "the same with area-weighted surfaces (DeepMind); missed and "
        "spurious ones have penalty_mm",
        "lesions": "26-connected components of the reference, merged where their "
        "dilations (18 neighbours, 'dilation' steps) touch; found by all components of "
        "the prediction that meet the dilation; those of min_lesion_mm3 or less do not "
        "count",
        "nothing_to_find": "dice 1 and hd95_mm 0 where there is no counted lesion and "
        "no spurious component",
        "whole_dice": "of the whole region; with whole_hd95_mm the 'legacy' columns of "
        "the official script",
    }

    dilation: int = Field(3, ge=0, le=20)
    min_lesion_mm3: Limit = 50.0
    penalty_mm: Limit = 374.0

    def measure(self, region: Region, spacing: Lattice) -> TargetMetrics:
        """Metrics of one region."""
        return lesion_wise_metrics(region, spacing=spacing, **self.model_dump())


class InstanceWise(Challenge):
    """BraTS 2025: panoptica's metrics of whole regions and of matched lesions."""

    name = "brats-instance"
    ranked = ("dice", "hd95_mm", "instance_dice", "instance_hd95_mm")
    needs_1_mm = True
    meaning: ClassVar[Mapping[str, str]] = {
        "dice": "of the whole region; with nsd and hd95_mm panoptica's global metrics: "
        "0 (penalty_mm) where the masks share no voxel, null (not counted) where both "
        "are empty; voxel surfaces, both directions pooled; distances in voxels, as "
        "panoptica counts them (mm on the grid of BraTS); NSD within 0.5 voxels",
        "instance_dice": "mean over matched lesions (panoptica's SQ), 0 without any; "
        "26-connected components, matched one to one for the largest sum of Dice",
        "instance_hd95_mm": "the same, in mm; penalty_mm without any match",
        "instance_nsd": "the same; within the smallest spacing",
        "rq": "F1 of lesions; pq: rq x instance_dice",
    }

    penalty_mm: Limit = 373.0

    def measure(self, region: Region, spacing: Lattice) -> TargetMetrics:
        """Metrics of one region."""
        return instance_metrics(region, spacing=spacing, penalty_mm=self.penalty_mm)


STANDARD = Standard()
"""With its default parameters."""

CONVENTIONS: dict[str, type[Convention]] = {
    kind.name: kind for kind in (Standard, Legacy, LesionWise, InstanceWise)
}


def choose_convention(
    name: str, settings: Mapping[str, Any] | None = None
) -> Convention:
    """The convention of that name; raises `RecipeError` for unknown names, parameters
    or values.
    """
    if name not in CONVENTIONS:
        raise RecipeError(
            f"convention '{name}' does not exist; choose one of "
            f"{', '.join(CONVENTIONS)}"
        )
    kind = CONVENTIONS[name]
    try:
        return kind(**(settings or {}))
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            complaint = f" has no parameter '{first['loc'][0]}'"
        else:
            complaint = f": {first_complaint(error, parts=1)}"
        raise RecipeError(
            f"convention {name}{complaint}; it has {_parameters(kind)}"
        ) from error


def _parameters(kind: type[Convention]) -> str:
    """The parameters of a convention, with their defaults where those are numbers."""
    parameters = []
    for key, field in kind.model_fields.items():
        if isinstance(field.default, float | int):
            parameters.append(f"{key} (default {field.default:g})")
        else:
            parameters.append(key)
    return ", ".join(parameters)
