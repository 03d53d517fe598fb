"""Volumes: how far the true ones lie from the predicted ones in held-out cases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trivox.evaluation.folders.labels import CaseMetrics
from trivox.evaluation.metrics.content import MetricRow
from trivox.evaluation.metrics.intervals import wilson_interval
from trivox.evaluation.metrics.trust_content import (
    VolumeIntervalRow,
    VolumeIntervalSection,
)
from trivox.inference.doubt.conformal import (
    LEVEL,
    RULE,
    Pairs,
    VolumeIntervals,
    band_of,
    held_by_others,
    learn_intervals,
    log_ratios,
)
from trivox.tasks.labels.promises.held_out import groups_of

VOLUME_CONVENTION = {
    "intervals": RULE,
    "factor": "true volume over predicted volume; the interval of a prediction is its "
    "volume times low_factor to high_factor, both volumes with the offset",
    "coverage": "share of held-out cases whose true volume lay in an interval learnt on "
    "the other folds, or with one fold on the other half of the cases (seeded halves); "
    "ci95: Wilson",
}


@dataclass(frozen=True, eq=False)
class VolumeLesson:
    """intervals go into the bundle, the section into metrics.json as
    `volume_intervals`; ratios: logarithm of true over predicted volume, by target and
    case.
    """

    intervals: VolumeIntervals | None
    ratios: Mapping[str, Mapping[str, float]]
    section: VolumeIntervalSection


def learn_volumes(
    cases: CaseMetrics,
    folds: Mapping[str, str],
    targets: Sequence[str],
    *,
    offset_ml: float,
    seed: int,
) -> VolumeLesson:
    """How far the true volumes of targets lie from the predicted ones in held-out
    cases, after postprocessing, and how often such an interval holds them.

    folds: that of each case; offset_ml: a voxel of the plan.
    """
    groups = groups_of({name: folds[name] for name in cases}, seed)
    volumes: dict[str, Pairs] = {}
    by_target: dict[str, dict[str, float]] = {}
    for target in targets:
        pairs = {name: _volumes(case[target]) for name, case in cases.items()}
        volumes[target] = list(pairs.values())
        ratios = log_ratios(volumes[target], offset_ml).tolist()
        by_target[target] = dict(zip(pairs, ratios, strict=True))
    rows = {target: _tested(ratios, groups) for target, ratios in by_target.items()}
    return VolumeLesson(
        learn_intervals(volumes, offset_ml=offset_ml),
        by_target,
        {
            "level": LEVEL,
            "offset_ml": offset_ml,
            "convention": VOLUME_CONVENTION,
            "targets": rows,
        },
    )


def _volumes(row: MetricRow) -> tuple[float, float]:
    return row["volume_ml"], row["reference_volume_ml"]


def _tested(
    ratios: Mapping[str, float], groups: Mapping[str, str]
) -> VolumeIntervalRow:
    """The band of a target, and how often those of other groups hold its cases."""
    band = band_of(np.array(list(ratios.values())))
    held = [holds for _, holds in held_by_others(ratios, groups)]
    share = float(np.mean(held)) if held else None
    interval = None if share is None else wilson_interval(sum(held), len(held))
    return {
        "low_factor": None if band is None else float(np.exp(band.low)),
        "high_factor": None if band is None else float(np.exp(band.high)),
        "cases": len(ratios),
        "covered": sum(held),
        "tested": len(held),
        "coverage": share,
        "ci95": None if interval is None else [interval.low, interval.high],
        "method": None if interval is None else interval.method,
    }
