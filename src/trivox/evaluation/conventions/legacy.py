"""Metrics of a whole region with a value for every case: BraTS until 2022.

Dice is 1 where both masks are empty; HD95 is then 0, and a penalty where exactly one
is. Distances are those of MedPy, as in nnU-Net's evaluation of BraTS: voxel surfaces,
the 95th percentile of both directions pooled.
"""

import math

from trivox.evaluation.conventions.cases import Region
from trivox.evaluation.metrics.content import TargetMetrics
from trivox.evaluation.metrics.overlap import Confusion
from trivox.evaluation.metrics.surfaces import surface_distances
from trivox.volumes.geometry import Lattice

PENALTY_MM = math.sqrt(240**2 + 240**2 + 155**2)
"""The diagonal of the BraTS grid, 373.13 mm."""


def legacy_metrics(
    region: Region, *, spacing: Lattice, penalty_mm: float = PENALTY_MM
) -> TargetMetrics:
    """dice, hd95_mm, sensitivity and specificity of a region, never None; spacing: mm
    `(z, y, x)`.
    """
    distances = surface_distances(region.prediction, region.reference, spacing=spacing)
    hd95 = distances.pooled_percentile_mm()
    return {
        "dice": whole_dice(region.counts),
        "hd95_mm": or_penalty(hd95, region.counts, penalty_mm),
        **shares(region.counts),
    }


def whole_dice(counts: Confusion) -> float:
    """Dice coefficient; 1 where both masks are empty."""
    total = counts.predicted + counts.expected
    return 2 * counts.true_positive / total if total else 1.0


def or_penalty(distance: float | None, counts: Confusion, penalty_mm: float) -> float:
    """The distance itself; without one 0 where both masks are empty, else the penalty."""
    if distance is not None:
        return distance
    return penalty_mm if counts.predicted or counts.expected else 0.0


def shares(counts: Confusion) -> TargetMetrics:
    """Sensitivity (1 where both masks are empty, 0 where only the reference is) and
    specificity.
    """
    negatives = counts.true_negative + counts.false_positive
    if counts.expected:
        sensitivity = counts.true_positive / counts.expected
    else:
        sensitivity = 0.0 if counts.predicted else 1.0
    return {
        "sensitivity": sensitivity,
        "specificity": counts.true_negative / negatives if negatives else 0.0,
    }
