"""Missed voxels and lesions: how few they are in held-out cases, from what probability
on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trivox.config.choices import MissedKind
from trivox.datasets.labels import LabelScheme
from trivox.evaluation.metrics.intervals import SHARE, mean_interval
from trivox.evaluation.metrics.trust_content import MissedRow, MissedSection
from trivox.inference.doubt.conformal import Floats
from trivox.inference.doubt.missed import (
    LESION_RULE,
    RULE,
    MissedControl,
    chances_of,
    learn_missed,
    missed_by_others,
    threshold_of,
)
from trivox.tasks.labels.promises.held_out import HeldOut, groups_of

SHOWN = (0.05, 0.1, 0.2)
"""Shares that metrics.json has rows of."""
OTHERS = (
    "below thresholds learnt on the other folds, or with one fold on the other half of "
    "the cases (seeded halves)"
)
CONVENTION = {
    "threshold": RULE,
    "missed": "mean over held-out cases with the structure of the share of its voxels "
    f"with a probability {OTHERS}",
}
LESION_CONVENTION = {
    "threshold": LESION_RULE,
    "missed": "mean over held-out cases with the structure of the share of its lesions "
    f"that are nowhere more probable than that: {OTHERS}",
}

Chances = dict[str, dict[str, Floats]]
"""By target and case: probabilities of what is to be found."""


@dataclass(frozen=True, eq=False)
class MissedLesson:
    """control goes into the bundle, the section into metrics.json as `missed_voxels` or
    `missed_lesions`.
    """

    control: MissedControl | None
    section: MissedSection


def learn_missed_shares(
    cases: Mapping[str, HeldOut],
    scheme: LabelScheme,
    *,
    temperature: float,
    seed: int,
) -> dict[MissedKind, MissedLesson]:
    """From what probability on few voxels, and few lesions, of each target are missed in
    held-out cases, and how many were with thresholds learnt on others.
    """
    groups = groups_of({name: case.fold for name, case in cases.items()}, seed)
    voxels: Chances = {target: {} for target in scheme.targets}
    lesions: Chances = {target: {} for target in scheme.targets}
    for name, case in cases.items():
        sample = case.sample
        for target, values in chances_of(sample, scheme, temperature).items():
            voxels[target][name] = values
        if sample.lesions is None:
            continue
        for target, values in sample.lesions.chances(scheme, temperature).items():
            lesions[target][name] = values
    return {
        "voxels": _lesson(voxels, groups, CONVENTION),
        "lesions": _lesson(lesions, groups, LESION_CONVENTION),
    }


def _lesson(
    known: Chances, groups: Mapping[str, str], convention: dict[str, str]
) -> MissedLesson:
    control = learn_missed(
        {target: list(by_case.values()) for target, by_case in known.items()},
        rule=convention["threshold"],
    )
    targets = {
        target: [_missed_row(by_case, groups, level) for level in SHOWN]
        for target, by_case in known.items()
    }
    return MissedLesson(control, {"convention": convention, "targets": targets})


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
