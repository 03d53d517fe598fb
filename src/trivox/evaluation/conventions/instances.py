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

import numpy as np

from trivox.evaluation.conventions.cases import Metrics, Region
from trivox.evaluation.metrics.components import (
    around,
    boxes,
    label_components,
    meetings,
    sizes,
)
from trivox.evaluation.metrics.surfaces import SurfaceDistances, surface_distances
from trivox.volumes.volume import Array, Spacing

VOXELS = (1.0, 1.0, 1.0)
MATCHED_DICE = 1e-6
UNMATCHED = 1.0 + 1e-6  # cost of a pair that may not be matched; panoptica's number


def instance_metrics(region: Region, *, spacing: Spacing, penalty_mm: float) -> Metrics:
    """Whole region: dice, nsd, hd95_mm.

    Matched lesions: their means instance_dice (panoptica's SQ), instance_nsd and
    instance_hd95_mm, how many were found, missed and spurious, lesion_precision,
    lesion_sensitivity, rq (F1), pq (SQ x RQ).

    All but the counts are None where both masks are empty. `lesions`: each lesion of
    the reference with its volume_mm3, and its dice, nsd and hd95_mm where it was found.
    """
    expected, predicted = (
        label_components(region.reference),
        label_components(region.prediction),
    )
    matches = match_instances(predicted, expected)
    rows = _measure(predicted, expected, matches, spacing)
    found, missed = len(matches), int(expected.max(initial=0)) - len(matches)
    spurious = int(predicted.max(initial=0)) - found
    empty = not (found or missed or spurious)
    recognition = None if empty else found / (found + 0.5 * missed + 0.5 * spurious)
    means = {
        f"instance_{name}": _mean(rows, name, empty, penalty_mm)
        for name in ("dice", "nsd", "hd95_mm")
    }
    return {
        **_whole(region, empty, penalty_mm),
        **means,
        "lesions_found": found,
        "lesions_missed": missed,
        "lesions_spurious": spurious,
        "lesion_precision": found / (found + spurious) if found + spurious else None,
        "lesion_sensitivity": found / (found + missed) if found + missed else None,
        "rq": recognition,
        "pq": None
        if recognition is None
        else recognition * (means["instance_dice"] or 0.0),
        "lesions": rows,
    }


def match_instances(predicted: Array, expected: Array) -> dict[int, int]:
    """Number of the matched component of `predicted` for each component of `expected`
    that has one.
    """
    from scipy.optimize import linear_sum_assignment

    pairs = meetings(expected, predicted)
    own, other = sizes(expected), sizes(predicted)
    cost = np.full((len(own) - 1, len(other) - 1), UNMATCHED)
    dice = 2 * pairs.voxels / (own[pairs.first] + other[pairs.second])
    allowed = dice >= MATCHED_DICE
    cost[pairs.first[allowed] - 1, pairs.second[allowed] - 1] = 1 - dice[allowed]
    rows, columns = linear_sum_assignment(cost)
    good = cost[rows, columns] < 1
    return dict(
        zip((rows[good] + 1).tolist(), (columns[good] + 1).tolist(), strict=True)
    )


def _measure(
    predicted: Array, expected: Array, matches: dict[int, int], spacing: Spacing
) -> list[Metrics]:
    """One row a lesion of the reference."""
    volumes = sizes(expected) * float(np.prod(spacing))
    places, found_places = boxes(expected), boxes(predicted)
    rows: list[Metrics] = []
    for number in range(1, len(volumes)):
        row: Metrics = {"volume_mm3": float(volumes[number])}
        if number in matches:
            box = around([places[number], found_places[matches[number]]])
            masks = predicted[box] == matches[number], expected[box] == number
            distances = surface_distances(*masks, spacing=spacing)
            dice = (
                2
                * np.count_nonzero(masks[0] & masks[1])
                / (np.count_nonzero(masks[0]) + np.count_nonzero(masks[1]))
            )
            row |= {"dice": dice, **_surface_metrics(distances, tolerance=min(spacing))}
        rows.append(row)
    return rows


def _whole(region: Region, empty: bool, penalty_mm: float) -> Metrics:
    counts = region.counts
    if not counts.true_positive:
        return {
            "dice": None if empty else 0.0,
            "nsd": None if empty else 0.0,
            "hd95_mm": None if empty else penalty_mm,
        }
    distances = surface_distances(region.prediction, region.reference, spacing=VOXELS)
    dice = 2 * counts.true_positive / (counts.predicted + counts.expected)
    return {"dice": dice, **_surface_metrics(distances, tolerance=0.5)}


def _surface_metrics(distances: SurfaceDistances, *, tolerance: float) -> Metrics:
    limit = np.float32(tolerance)
    near = [
        np.mean(d.astype(np.float32) <= limit)
        for d in (distances.to_reference, distances.to_prediction)
    ]
    return {"nsd": float(np.mean(near)), "hd95_mm": distances.pooled_percentile_mm()}


def _mean(
    rows: list[Metrics], name: str, empty: bool, penalty_mm: float
) -> float | None:
    """Mean over lesions that were found; without any the worst value, or None where
    there is nothing to find.
    """
    values = [row[name] for row in rows if name in row]
    if values:
        return float(np.mean(values))
    return None if empty else penalty_mm if name == "hd95_mm" else 0.0
