"""Lesion-wise Dice and HD95 of BraTS 2023 and 2024 (Saluja et al.,
github.com/rachitsaluja/BraTS-2023-Metrics).

Lesions of the reference are its components (26 neighbours), merged where their
dilations touch. A lesion is found by all components of the prediction that meet its
dilation; the union of those is compared with the undilated lesion. Components of the
prediction that meet no lesion are spurious and count, whatever their size, like a
missed lesion: Dice 0, HD95 the penalty. Lesions of the reference up to a size limit
count nowhere, nor does what found them. A component that meets two lesions counts for
both: the official script does it so.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_dilation, generate_binary_structure

from trivox.evaluation.conventions.cases import Region
from trivox.evaluation.conventions.legacy import or_penalty, shares, whole_dice
from trivox.evaluation.metrics.components import (
    Meetings,
    around,
    boxes,
    label_components,
    meetings,
    sizes,
)
from trivox.evaluation.metrics.content import LesionRow, TargetMetrics
from trivox.evaluation.metrics.surfaces import surface_distances
from trivox.volumes.geometry import Lattice, voxel_mm3
from trivox.volumes.volume import Array


@dataclass(frozen=True, eq=False)
class Lesions:
    """Lesions of a reference and the components of a prediction, numbered from 1 on.

    reference, prediction: their numbers `(z, y, x)`; found_by: for each lesion, what
    found it; spurious: how many components of the prediction found none.
    """

    reference: Array
    prediction: Array
    found_by: dict[int, list[int]]
    spurious: int


def lesion_wise_metrics(
    region: Region,
    *,
    spacing: Lattice,
    dilation: int,
    min_lesion_mm3: float,
    penalty_mm: float,
) -> TargetMetrics:
    """Mean dice and hd95_mm of lesions, and how many were found, missed, spurious or
    too small to count.

    dilation: steps of 18 neighbours. min_lesion_mm3: lesions of this volume or less do
    not count. Also the metrics of the whole region that the script prints (whole_dice,
    whole_hd95_mm, sensitivity, specificity), and `lesions`: each counted lesion with
    its volume_mm3, dice, hd95_mm and how many components found it (components).
    """
    lesions = match_lesions(region.prediction, region.reference, dilation=dilation)
    rows = _measure(lesions, spacing, min_lesion_mm3, penalty_mm)
    total = len(rows) + lesions.spurious
    dice = sum(row["dice"] for row in rows)
    hd95 = sum(row["hd95_mm"] or 0.0 for row in rows) + penalty_mm * lesions.spurious
    missed = sum(row["components"] == 0 for row in rows)
    whole = surface_distances(
        region.prediction, region.reference, spacing=spacing, surface="mesh"
    )
    return {
        "dice": dice / total if total else 1.0,
        "hd95_mm": hd95 / total if total else 0.0,
        "lesions_found": len(rows) - missed,
        "lesions_missed": missed,
        "lesions_spurious": lesions.spurious,
        "lesions_too_small": len(lesions.found_by) - len(rows),
        "whole_dice": whole_dice(region.counts),
        "whole_hd95_mm": or_penalty(whole.hausdorff_mm(), region.counts, penalty_mm),
        **shares(region.counts),
        "lesions": rows,
    }


def match_lesions(prediction: Array, reference: Array, *, dilation: int) -> Lesions:
    """Number the lesions of two boolean masks `(z, y, x)` and match them.

    A component of the dilated reference is the dilation of exactly one merged lesion,
    so one dilation serves them all. It may be cropped to the box of the masks:
    dilations that touch at all also touch between the voxels they come from.
    """
    zones = label_components(_dilated(reference, dilation))
    components = label_components(prediction)
    near = meetings(zones, components)
    zone_count = int(zones.max(initial=0))
    found_by: dict[int, list[int]] = {n: [] for n in range(1, zone_count + 1)}
    for zone, component in zip(near.first.tolist(), near.second.tolist(), strict=True):
        found_by[zone].append(component)
    spurious = int(components.max(initial=0)) - len(np.unique(near.second))
    return Lesions(np.where(reference, zones, 0), components, found_by, spurious)


def _dilated(mask: Array, steps: int) -> Array:
    """The mask, grown by `steps` of its 18 neighbours."""
    if steps == 0 or not mask.any():
        return mask
    neighbours = generate_binary_structure(3, 2)
    return np.asarray(binary_dilation(mask, neighbours, iterations=steps))


def _measure(
    lesions: Lesions, spacing: Lattice, min_lesion_mm3: float, penalty_mm: float
) -> list[LesionRow]:
    """Dice and HD95 of each lesion that counts, against the union of what found it."""
    shared = _by_lesion(meetings(lesions.reference, lesions.prediction))
    lesion_sizes = sizes(lesions.reference)
    component_sizes = sizes(lesions.prediction)
    volumes = lesion_sizes * voxel_mm3(spacing)
    places = boxes(lesions.reference)
    component_places = boxes(lesions.prediction)
    rows: list[LesionRow] = []
    for number, finders in lesions.found_by.items():
        if volumes[number] <= min_lesion_mm3:
            continue
        hd95 = penalty_mm
        if finders:
            box = around([places[number], *(component_places[n] for n in finders)])
            prediction = np.isin(lesions.prediction[box], finders)
            lesion = lesions.reference[box] == number
            distances = surface_distances(
                prediction, lesion, spacing=spacing, surface="mesh"
            )
            hd95 = distances.hausdorff_mm() or 0.0
        voxels = float(lesion_sizes[number] + component_sizes[finders].sum())
        row: LesionRow = {
            "volume_mm3": float(volumes[number]),
            "dice": 2 * shared.get(number, 0) / voxels,
            "hd95_mm": hd95,
            "components": len(finders),
        }
        rows.append(row)
    return rows


def _by_lesion(shared: Meetings) -> dict[int, int]:
    """Voxels of each lesion that the prediction holds; all of them belong to components
    that found it.
    """
    voxels = np.bincount(shared.first, weights=shared.voxels)
    return {number: int(count) for number, count in enumerate(voxels)}
