"""All metrics of one case: a prediction against a reference, target by target."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from trivox.datasets.boxes import Box
from trivox.datasets.labels import IGNORED
from trivox.evaluation.metrics import overlap
from trivox.evaluation.metrics.components import around
from trivox.evaluation.metrics.content import TargetMetrics
from trivox.evaluation.metrics.overlap import Confusion
from trivox.evaluation.metrics.surfaces import surface_distances
from trivox.volumes.geometry import Lattice, longest_diagonal, voxel_mm3
from trivox.volumes.volume import Array

DEFAULT_TOLERANCE_MM = 2.0

Tolerance = float | Mapping[str, float]
IfMissed = Literal["null", "diagonal"]


@dataclass(frozen=True, eq=False)
class Region:
    """One target in one case: boolean masks `(z, y, x)`, cropped around both, and
    counts of the whole volume.
    """

    prediction: Array
    reference: Array
    counts: Confusion


def evaluate_case(
    prediction: Array,
    reference: Array,
    *,
    spacing: Lattice,
    targets: Mapping[str, Sequence[int]],
    tolerance_mm: Tolerance = DEFAULT_TOLERANCE_MM,
    hd95_if_missed: IfMissed = "null",
) -> dict[str, TargetMetrics]:
    """Metrics of each target, in the convention `Standard`.

    prediction, reference: label indices `(z, y, x)`; where the reference is -1, neither
    is looked at. spacing: mm `(z, y, x)`, or the steps
    of a sheared grid. targets: name -> indices that belong to it;
    targets may overlap. tolerance_mm: for NSD, one for all or one for each target (2 mm
    for those not named). hd95_if_missed: distance where exactly one mask is empty:
    None, or the image diagonal. Returns for each target dice, iou, sensitivity,
    precision, hd95_mm, assd_mm, nsd, nsd_voxel, volume_ml, reference_volume_ml,
    volume_error_ml, volume_error_percent, and `empty` (which mask holds nothing).
    Raises `GeometryError` if the shapes differ.
    """
    voxel_ml = voxel_mm3(spacing) / 1000
    if_missed = None
    if hd95_if_missed == "diagonal":
        if_missed = longest_diagonal(spacing, prediction.shape)
    result: dict[str, TargetMetrics] = {}
    for name, region in regions_of(prediction, reference, targets=targets):
        tolerance = tolerance_of(tolerance_mm, name)
        result[name] = {
            **overlap_metrics(region.counts),
            **volume_metrics(region.counts, voxel_ml),
            **_distance_metrics(region, spacing, tolerance, if_missed),
        }
    return result


def regions_of(
    prediction: Array, reference: Array, *, targets: Mapping[str, Sequence[int]]
) -> Iterator[tuple[str, Region]]:
    """Each target of two maps of label indices; raises `GeometryError` if the shapes
    differ.
    """
    overlap.require_same_shape(prediction, reference)
    prediction, reference = _without_ignored(prediction, reference)
    predicted = int(prediction.max(initial=0))
    expected = int(reference.max(initial=0))
    declared = [max(indices) for indices in targets.values()]
    count = 1 + max(predicted, expected, *declared)
    table = _joint_histogram(prediction, reference, count)
    boxes = _boxes(prediction, reference, count)
    for name, indices in targets.items():
        member = np.zeros(count + 1, dtype=bool)  # the last entry answers for index -1
        member[list(indices)] = True
        box = around([boxes[index] for index in indices if index in boxes])
        region = Region(
            prediction=member[prediction[box]],
            reference=member[reference[box]],
            counts=_target_counts(table, member[:-1]),
        )
        yield name, region


def tolerance_of(tolerance_mm: Tolerance, target: str) -> float:
    """The NSD tolerance of a target in mm."""
    if isinstance(tolerance_mm, Mapping):
        return float(tolerance_mm.get(target, DEFAULT_TOLERANCE_MM))
    return float(tolerance_mm)


def _without_ignored(prediction: Array, reference: Array) -> tuple[Array, Array]:
    """Both arrays with -1 wherever the reference is ignored; an ignored prediction
    elsewhere is background.
    """
    ignored = reference == IGNORED
    if ignored.any() or prediction.min(initial=0) < 0:
        prediction = np.where(ignored, IGNORED, prediction.clip(min=0))
    return prediction, reference


def _joint_histogram(
    prediction: Array, reference: Array, count: int
) -> NDArray[np.int64]:
    """How many voxels have each pair of indices, `(count, count)`, prediction first;
    one pass for all overlaps.
    """
    table = np.zeros(count * count, dtype=np.int64)
    # Plane by plane: no 64-bit copy of the volume.
    for predicted, expected in zip(prediction, reference, strict=True):
        pairs = predicted.astype(np.int64) * count + expected
        valid = pairs if expected.min(initial=0) >= 0 else pairs[expected >= 0]
        table += np.bincount(valid.ravel(), minlength=count * count)
    return table.reshape(count, count)


def _boxes(prediction: Array, reference: Array, count: int) -> dict[int, Box]:
    """The box of each index, background left out, over both arrays."""
    predicted = _places(prediction, count)
    expected = _places(reference, count)
    boxes: dict[int, Box] = {}
    for index, both in enumerate(zip(predicted, expected, strict=True), start=1):
        if any(both):
            boxes[index] = around(both)
    return boxes


def _places(array: Array, count: int) -> list[Any]:
    """The box of each index from 1 on, None where there is none."""
    return find_objects(array.astype(np.int32, copy=False), max_label=count - 1)


def _target_counts(table: NDArray[np.int64], member: Array) -> Confusion:
    """Counts of a target; member: which indices belong to it, `(count,)`."""
    inside = table[member]
    outside = table[~member]
    return Confusion(
        true_positive=int(inside[:, member].sum()),
        false_positive=int(inside[:, ~member].sum()),
        false_negative=int(outside[:, member].sum()),
        true_negative=int(outside[:, ~member].sum()),
    )


def overlap_metrics(counts: Confusion) -> TargetMetrics:
    """dice, iou, sensitivity and precision; None where they say nothing."""
    return {
        "dice": overlap.dice(counts),
        "iou": overlap.iou(counts),
        "sensitivity": overlap.sensitivity(counts),
        "precision": overlap.precision(counts),
    }


def volume_metrics(counts: Confusion, voxel_ml: float) -> TargetMetrics:
    """Volumes of both masks, their difference, and `empty` where at least one of them
    is.
    """
    metrics: TargetMetrics = {
        "volume_ml": counts.predicted * voxel_ml,
        "reference_volume_ml": counts.expected * voxel_ml,
        "volume_error_ml": overlap.volume_error_ml(counts, voxel_ml=voxel_ml),
        "volume_error_percent": overlap.volume_error_percent(counts),
    }
    if not counts.predicted and not counts.expected:
        metrics["empty"] = "both"
    elif not counts.predicted:
        metrics["empty"] = "prediction"
    elif not counts.expected:
        metrics["empty"] = "reference"
    return metrics


def _distance_metrics(
    region: Region, spacing: Lattice, tolerance: float, if_missed: float | None
) -> TargetMetrics:
    """hd95_mm and assd_mm (`if_missed` where exactly one mask is empty), nsd and
    nsd_voxel.
    """
    masks = (region.prediction, region.reference)
    voxel = surface_distances(*masks, spacing=spacing)
    mesh = surface_distances(
        *masks, spacing=spacing, surface="mesh", limit_mm=tolerance
    )
    hd95 = voxel.hausdorff_mm()
    assd = voxel.average_mm()
    if voxel.empty and any(mask.any() for mask in masks):
        hd95 = if_missed
        assd = if_missed
    return {
        "hd95_mm": hd95,
        "assd_mm": assd,
        "nsd": mesh.surface_dice(tolerance),
        "nsd_voxel": voxel.surface_dice(tolerance),
    }
