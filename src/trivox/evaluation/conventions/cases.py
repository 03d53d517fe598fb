"""All metrics of one case: a prediction against a reference, target by target."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.labels import IGNORED
from trivox.evaluation.metrics import overlap
from trivox.evaluation.metrics.components import Box, around
from trivox.evaluation.metrics.overlap import Confusion
from trivox.evaluation.metrics.surfaces import surface_distances
from trivox.volumes.volume import Array, Spacing

DEFAULT_TOLERANCE_MM = 2.0

Metrics = dict[str, Any]
"""Name -> number or None; `empty` names the empty mask, `lesions` lists one row a
lesion.
"""

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
    spacing: Spacing,
    targets: Mapping[str, Sequence[int]],
    tolerance_mm: Tolerance = DEFAULT_TOLERANCE_MM,
    hd95_if_missed: IfMissed = "null",
) -> dict[str, Metrics]:
    """Metrics of each target, in the convention that `convention` states.

    prediction, reference: label indices `(z, y, x)`; where the reference is -1, neither
    is looked at. spacing: mm `(z, y, x)`. targets: name -> indices that belong to it;
    targets may overlap. tolerance_mm: for NSD, one for all or one for each target (2 mm
    for those not named). hd95_if_missed: distance where exactly one mask is empty:
    None, or the image diagonal. Returns for each target dice, iou, sensitivity,
    precision, hd95_mm, assd_mm, nsd, nsd_voxel, volume_ml, reference_volume_ml,
    volume_error_ml, volume_error_percent, and `empty` (which mask holds nothing).
    Raises `GeometryError` if the shapes differ.
    """
    voxel_ml = float(np.prod(spacing)) / 1000
    diagonal = (
        float(np.linalg.norm(np.array(prediction.shape) * spacing))
        if hd95_if_missed == "diagonal"
        else None
    )
    result: dict[str, Metrics] = {}
    for name, region in regions_of(prediction, reference, targets=targets):
        masks = region.prediction, region.reference
        distances = _distance_metrics(
            masks, spacing, tolerance_of(tolerance_mm, name), diagonal
        )
        result[name] = {
            **overlap_metrics(region.counts),
            **volume_metrics(region.counts, voxel_ml),
            **distances,
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
    count = (
        max(
            int(prediction.max(initial=0)),
            int(reference.max(initial=0)),
            *(max(t) for t in targets.values()),
        )
        + 1
    )
    table = _joint_histogram(prediction, reference, count)
    boxes = _boxes(prediction, reference, count)
    for name, indices in targets.items():
        member = np.zeros(count + 1, dtype=bool)  # the last entry answers for index -1
        member[list(indices)] = True
        box = around([boxes[index] for index in indices if index in boxes])
        yield (
            name,
            Region(
                member[prediction[box]],
                member[reference[box]],
                _target_counts(table, member[:-1]),
            ),
        )


def tolerance_of(tolerance_mm: Tolerance, target: str) -> float:
    """The NSD tolerance of a target in mm."""
    return float(
        tolerance_mm.get(target, DEFAULT_TOLERANCE_MM)
        if isinstance(tolerance_mm, Mapping)
        else tolerance_mm
    )


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
    for predicted, expected in zip(
        prediction, reference, strict=True
    ):  # plane by plane: no 64-bit copy of the volume
        pairs = predicted.astype(np.int64) * count + expected
        valid = pairs if expected.min(initial=0) >= 0 else pairs[expected >= 0]
        table += np.bincount(valid.ravel(), minlength=count * count)
    return table.reshape(count, count)


def _boxes(prediction: Array, reference: Array, count: int) -> dict[int, Box]:
    """The box of each index, background left out, over both arrays."""
    from scipy.ndimage import find_objects

    found = [
        find_objects(array.astype(np.int32, copy=False), max_label=count - 1)
        for array in (prediction, reference)
    ]
    pairs = {
        index: [box for box in both if box]
        for index, both in enumerate(zip(*found, strict=True), start=1)
    }
    return {index: around(boxes) for index, boxes in pairs.items() if boxes}


def _target_counts(table: NDArray[np.int64], member: Array) -> Confusion:
    inside, outside = table[member], table[~member]
    cells = (
        inside[:, member],
        inside[:, ~member],
        outside[:, member],
        outside[:, ~member],
    )
    return Confusion(*(int(cell.sum()) for cell in cells))


def overlap_metrics(counts: Confusion) -> Metrics:
    """dice, iou, sensitivity and precision; None where they say nothing."""
    return {
        "dice": overlap.dice(counts),
        "iou": overlap.iou(counts),
        "sensitivity": overlap.sensitivity(counts),
        "precision": overlap.precision(counts),
    }


def volume_metrics(counts: Confusion, voxel_ml: float) -> Metrics:
    """Volumes of both masks, their difference, and `empty` where at least one of them
    is.
    """
    empty = {(0, 0): "both", (0, 1): "prediction", (1, 0): "reference"}
    state = empty.get((int(counts.predicted > 0), int(counts.expected > 0)))
    return {
        "volume_ml": counts.predicted * voxel_ml,
        "reference_volume_ml": counts.expected * voxel_ml,
        "volume_error_ml": overlap.volume_error_ml(counts, voxel_ml=voxel_ml),
        "volume_error_percent": overlap.volume_error_percent(counts),
        **({"empty": state} if state else {}),
    }


def _distance_metrics(
    masks: tuple[Array, Array],
    spacing: Spacing,
    tolerance: float,
    diagonal: float | None,
) -> Metrics:
    voxel = surface_distances(*masks, spacing=spacing)
    mesh = surface_distances(
        *masks, spacing=spacing, convention="mesh", limit_mm=tolerance
    )
    missed = diagonal if voxel.empty and any(mask.any() for mask in masks) else None
    return {
        "hd95_mm": missed if voxel.empty else voxel.hausdorff_mm(),
        "assd_mm": missed if voxel.empty else voxel.average_mm(),
        "nsd": mesh.surface_dice(tolerance),
        "nsd_voxel": voxel.surface_dice(tolerance),
    }
