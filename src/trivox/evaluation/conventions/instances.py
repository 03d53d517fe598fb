"""Metrics of a region as a whole and lesion by lesion, as BraTS 2025 takes them from
panoptica (Kofler et al. 2023, arXiv:2312.02608; packages panoptica 2.1 and
brats-evaluation 0.0.10, `config_gli.yaml`).

Lesions are components (26 neighbours) of reference and prediction. They are matched one
to one so that the sum of their Dice is largest, among pairs with a Dice of at least
1e-6. Surfaces are made of voxels; HD95 is the 95th percentile of both directions
pooled, NSD the mean of the shares of both surfaces within the tolerance. Two ways of
the package are kept: metrics of the whole region are 0 (HD95: the penalty) as soon as
the masks share no voxel; and their distances are counted in voxels, since it hands the
spacing to the lesions' metrics alone (BraTS has 1 mm). The tolerance of NSD is half a
voxel for the whole region, and the smallest spacing for lesions.
"""

from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from trivox.evaluation.conventions.cases import Region
from trivox.evaluation.metrics.components import (
    around,
    boxes,
    label_components,
    meetings,
    sizes,
)
from trivox.evaluation.metrics.content import LesionRow, TargetMetrics
from trivox.evaluation.metrics.overlap import confusion
from trivox.evaluation.metrics.surfaces import (
    SurfaceDistances,
    surface_distances,
    within,
)
from trivox.volumes.geometry import Lattice, edges_of, voxel_mm3
from trivox.volumes.volume import Array

VOXELS = (1.0, 1.0, 1.0)
MATCHED_DICE = 1e-6
UNMATCHED = 1.0 + 1e-6
"""Cost of a pair that may not be matched; panoptica's number."""


def instance_metrics(
    region: Region, *, spacing: Lattice, penalty_mm: float
) -> TargetMetrics:
    """Whole region: dice, nsd, hd95_mm.

    Matched lesions: their means instance_dice (panoptica's SQ), instance_nsd and
    instance_hd95_mm, how many were found, missed and spurious, lesion_precision,
    lesion_sensitivity, rq (F1), pq (SQ x RQ).

    All but the counts are None where both masks are empty. `lesions`: each lesion of
    the reference with its volume_mm3, and its dice, nsd and hd95_mm where it was found.
    """
    expected = label_components(region.reference)
    predicted = label_components(region.prediction)
    matches = match_instances(predicted, expected)
    rows = _measure(predicted, expected, matches, spacing)
    matched = len(matches)
    missed = int(expected.max(initial=0)) - matched
    spurious = int(predicted.max(initial=0)) - matched
    empty = not (matched or missed or spurious)
    worst = None if empty else 0.0
    worst_mm = None if empty else penalty_mm
    quality = _mean(rows, "dice", worst)
    recognition = _share(matched, matched + 0.5 * missed + 0.5 * spurious)
    return {
        **_whole(region, worst, worst_mm),
        "instance_dice": quality,
        "instance_nsd": _mean(rows, "nsd", worst),
        "instance_hd95_mm": _mean(rows, "hd95_mm", worst_mm),
        "lesions_found": matched,
        "lesions_missed": missed,
        "lesions_spurious": spurious,
        "lesion_precision": _share(matched, matched + spurious),
        "lesion_sensitivity": _share(matched, matched + missed),
        "rq": recognition,
        "pq": None if recognition is None else recognition * (quality or 0.0),
        "lesions": rows,
    }


def match_instances(predicted: Array, expected: Array) -> dict[int, int]:
    """Number of the matched component of `predicted` for each component of `expected`
    that has one.
    """
    pairs = meetings(expected, predicted)
    expected_sizes = sizes(expected)
    predicted_sizes = sizes(predicted)
    both = expected_sizes[pairs.first] + predicted_sizes[pairs.second]
    dice = 2 * pairs.voxels / both
    allowed = dice >= MATCHED_DICE
    cost = np.full((len(expected_sizes) - 1, len(predicted_sizes) - 1), UNMATCHED)
    cost[pairs.first[allowed] - 1, pairs.second[allowed] - 1] = 1 - dice[allowed]
    rows, columns = linear_sum_assignment(cost)
    good = cost[rows, columns] < 1
    numbers = (rows[good] + 1).tolist()
    matches = (columns[good] + 1).tolist()
    return dict(zip(numbers, matches, strict=True))


def _measure(
    predicted: Array, expected: Array, matches: dict[int, int], spacing: Lattice
) -> list[LesionRow]:
    """One row a lesion of the reference."""
    volumes = sizes(expected) * voxel_mm3(spacing)
    places = boxes(expected)
    matched_places = boxes(predicted)
    rows: list[LesionRow] = []
    for number in range(1, len(volumes)):
        row: LesionRow = {"volume_mm3": float(volumes[number])}
        if number in matches:
            match = matches[number]
            box = around([places[number], matched_places[match]])
            lesion = expected[box] == number
            prediction = predicted[box] == match
            counts = confusion(prediction, lesion)
            distances = surface_distances(prediction, lesion, spacing=spacing)
            total = counts.predicted + counts.expected
            row["dice"] = 2 * counts.true_positive / total
            row["nsd"] = _surface_dice(distances, min(edges_of(spacing)))
            row["hd95_mm"] = distances.pooled_percentile_mm()
        rows.append(row)
    return rows


def _whole(
    region: Region, worst: float | None, worst_mm: float | None
) -> TargetMetrics:
    """Metrics of the region as a whole, the worst ones if the masks share no voxel."""
    counts = region.counts
    if not counts.true_positive:
        return {"dice": worst, "nsd": worst, "hd95_mm": worst_mm}
    distances = surface_distances(region.prediction, region.reference, spacing=VOXELS)
    return {
        "dice": 2 * counts.true_positive / (counts.predicted + counts.expected),
        "nsd": _surface_dice(distances, 0.5),
        "hd95_mm": distances.pooled_percentile_mm(),
    }


def _surface_dice(distances: SurfaceDistances, tolerance: float) -> float:
    """Mean of the shares of both surfaces within the tolerance."""
    forth = np.mean(within(distances.to_reference, tolerance))
    back = np.mean(within(distances.to_prediction, tolerance))
    return float(np.mean([forth, back]))


def _mean(
    rows: list[LesionRow],
    name: Literal["dice", "nsd", "hd95_mm"],
    worst: float | None,
) -> float | None:
    """Mean over lesions that were found; `worst` without any."""
    values = [value for row in rows if (value := row.get(name)) is not None]
    return float(np.mean(values)) if values else worst


def _share(part: float, whole: float) -> float | None:
    """None of nothing."""
    return part / whole if whole else None
