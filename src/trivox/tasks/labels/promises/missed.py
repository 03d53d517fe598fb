"""Missed voxels: how few they are in held-out cases, from what probability on."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.evaluation.metrics.intervals import SHARE, mean_interval
from trivox.evaluation.metrics.trust_content import MissedRow, MissedSection
from trivox.inference.doubt.conformal import Floats
from trivox.inference.doubt.missed import (
    RULE,
    MissedControl,
    chances_of,
    learn_missed,
    missed_by_others,
    threshold_of,
)
from trivox.tasks.labels.promises.held_out import HeldOut, groups_of

SHOWN = (0.05, 0.1, 0.2)
"""Shares of missed voxels that metrics.json has rows of."""
CONVENTION = {
    "threshold": RULE,
    "missed": "mean over held-out cases with the structure of the share of its voxels "
    "with a probability below thresholds learnt on the other folds, or with one fold on "
    "the other half of the cases (seeded halves)",
}


@dataclass(frozen=True, eq=False)
class MissedLesson:
    """control goes into the bundle, the section into metrics.json as `missed_voxels`."""

    control: MissedControl | None
    section: MissedSection


def learn_missed_voxels(
    cases: Mapping[str, HeldOut],
    scheme: LabelScheme,
    *,
    temperature: float,
    seed: int,
) -> MissedLesson:
    """From what probability on few voxels of each target are missed in held-out cases,
    and how many were with thresholds learnt on others.
    """
    groups = groups_of({name: case.fold for name, case in cases.items()}, seed)
    known: dict[str, dict[str, Floats]] = {target: {} for target in scheme.targets}
    for name, case in cases.items():
        chances = chances_of(case.sample, scheme, temperature)
        for target, values in chances.items():
            known[target][name] = values
    control = learn_missed({name: list(each.values()) for name, each in known.items()})
    targets = {}
    for target, by_case in known.items():
        targets[target] = [_missed_row(by_case, groups, level) for level in SHOWN]
    return MissedLesson(control, {"convention": CONVENTION, "targets": targets})


def _missed_row(
    cases: Mapping[str, Floats], groups: Mapping[str, str], level: float
) -> MissedRow:
    missed = np.array(list(missed_by_others(cases, groups, level)))
    interval = mean_interval(missed, SHARE)
    return {
        "max_missed": level,
        "threshold": threshold_of(list(cases.values()), level),
        "cases": len(cases),
        "tested": missed.size,
        "missed": float(missed.mean()) if missed.size else None,
        "ci95": None if interval is None else [interval.low, interval.high],
        "method": None if interval is None else interval.method,
    }
