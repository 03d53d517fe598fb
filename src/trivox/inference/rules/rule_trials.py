"""Which postprocessing helps is decided on validation cases, never on test cases;
cross-fitting says what it is worth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.inference.rules.postprocess import (
    MIN_GAIN,
    Postprocessing,
    largest_component,
    largest_of_each,
)
from trivox.inference.rules.region_trials import (
    RegionEvidence,
    RegionTrials,
    region_evidence,
)
from trivox.volumes.volume import Array

REPEATS = 20
"""Random halvings of the cases for the cross-fitted gain."""
CONVENTION = (
    "gain: of mean Dice by all rules together. on_the_same_cases: on those that the "
    "rules were chosen on, optimistic; cross_fitted: of choosing on one random half and "
    f"measuring on the other and the reverse, mean of {REPEATS} seeded halvings; where "
    "that is not above 0, the rules of the region are left out"
)


@dataclass(frozen=True, eq=False)
class LabelEvidence:
    """What is kept of a case with exclusive labels: Dice of `candidate_dice`."""

    candidates: Array

    @property
    def dice(self) -> Array:
        """Dice of each label as predicted; NaN where it is absent from both."""
        return np.asarray(self.candidates[0])


Evidence = LabelEvidence | RegionEvidence


@dataclass(frozen=True, eq=False)
class Choice:
    """rules go into the bundle, the section into metrics.json as `postprocessing`."""

    rules: Postprocessing
    section: dict[str, object]


class Trials(Protocol):
    """Evidence of all cases."""

    def dice(self, rules: Postprocessing) -> Array:
        """Dice `(case, target)` after the rules; NaN does not count."""

    def choose(self, rows: Array) -> tuple[Postprocessing, list[str]]:
        """The rules that help on the cases of these numbers, and a line about each
        trial.
        """


def evidence_of(
    prediction: Array, reference: Array, scheme: LabelScheme, *, voxel_mm3: float
) -> Evidence:
    """Measure a case of label indices `(z, y, x)`, uncleaned, against its reference
    (-1: ignored).
    """
    if scheme.exclusive:
        return LabelEvidence(
            candidate_dice(prediction, reference, len(scheme.values) - 1)
        )
    return region_evidence(prediction, reference, scheme, voxel_mm3=voxel_mm3)


def choose_rules(
    cases: Sequence[Evidence], scheme: LabelScheme, *, seed: int
) -> Choice:
    """Choose on all cases; measure what choosing is worth on cases that were not chosen
    on.

    Rules of a region whose choice is worth nothing there are left out (exclusive labels
    keep nnU-Net's rule as it is).
    """
    trials = _trials_of(cases, scheme)
    rules, notes = trials.choose(np.arange(len(cases)))
    before = _mean_over_cases(trials.dice(Postprocessing()))
    here = _mean_over_cases(trials.dice(rules)) - before
    crossed = cross_fitted(trials, len(cases), seed=seed) - before
    if not scheme.exclusive:
        left_out = _useless(rules, dict(zip(scheme.targets, crossed, strict=True)))
        rules = rules.without(left_out)
        for name in left_out:
            notes.append(
                f"rules of {name}: left out, they do not help on cases that they were "
                "not chosen on"
            )
    gain = {}
    for name, same, other in zip(scheme.targets, here, crossed, strict=True):
        gain[name] = {
            "on_the_same_cases": _number(same),
            "cross_fitted": _number(other),
        }
    section = {
        **rules.model_dump(mode="json"),
        "trials": notes,
        "gain": gain,
        "convention": CONVENTION,
    }
    return Choice(rules, section)


def _trials_of(cases: Sequence[Evidence], scheme: LabelScheme) -> Trials:
    """Trials of the rules that there are for such labels."""
    if scheme.exclusive:
        return LabelTrials([case for case in cases if isinstance(case, LabelEvidence)])
    regions = [case for case in cases if isinstance(case, RegionEvidence)]
    return RegionTrials(regions, scheme)


def _useless(rules: Postprocessing, worth: Mapping[str, float]) -> list[str]:
    """Regions whose rules are worth nothing; worth: by region."""
    ruled = rules.of_regions()
    return [name for name, gain in worth.items() if name in ruled and gain <= 0]


def cross_fitted(trials: Trials, cases: int, *, seed: int) -> Array:
    """Mean Dice `(target,)` of each case under rules chosen on a half without it; NaN
    for less than two cases.
    """
    before = trials.dice(Postprocessing())
    if cases < 2:
        return np.full(before.shape[1], np.nan)
    rng = np.random.default_rng(seed)
    means = []
    for _ in range(REPEATS):
        order = rng.permutation(cases)
        first = order[: cases // 2]
        second = order[cases // 2 :]
        after = np.empty_like(before)
        for chosen_on, measured in ((first, second), (second, first)):
            rules, _notes = trials.choose(chosen_on)
            after[measured] = trials.dice(rules)[measured]
        means.append(_mean_over_cases(after))
    return np.asarray(np.mean(means, axis=0))


class LabelTrials:
    """Trials of nnU-Net's rule for exclusive labels.

    The largest foreground component alone is kept if the mean Dice rises and no label
    falls; the largest component of a label if that label's Dice rises.
    """

    def __init__(self, cases: Sequence[LabelEvidence]) -> None:
        self._dice = np.stack([case.candidates for case in cases])  # (case, 4, label)

    def dice(self, rules: Postprocessing) -> Array:
        """Dice `(case, label)` after the rules; NaN where absent from both."""
        whole = int(rules.largest_foreground)
        alone = np.isin(np.arange(self._dice.shape[2]) + 1, rules.largest_of)
        return np.where(alone, self._dice[:, 2 + whole], self._dice[:, whole])

    def choose(self, rows: Array) -> tuple[Postprocessing, list[str]]:
        """The rules that help on these cases, and a line about each trial."""
        means = _mean_over_cases(self._dice[rows])  # (4, label)
        before = np.nan
        after = np.nan
        whole = False
        if np.isfinite(means[0]).any():
            before = float(np.nanmean(means[0]))
            after = float(np.nanmean(means[1]))
            falls = (means[1] < means[0] - 1e-9).any()
            whole = after - before > MIN_GAIN and not falls
        notes = [_note("the whole foreground", before, after, whole)]
        base = means[int(whole)]
        alone = means[2 + int(whole)]
        chosen = []
        for index in range(len(base)):
            helps = bool(alone[index] - base[index] > MIN_GAIN)
            if helps:
                chosen.append(index + 1)
            notes.append(_note(f"label {index + 1}", base[index], alone[index], helps))
        rules = Postprocessing(largest_foreground=whole, largest_of=tuple(chosen))
        return rules, notes


def candidate_dice(prediction: Array, reference: Array, labels: int) -> Array:
    """Dice `(4, labels)` of a case: as predicted, largest foreground, largest of each
    label, both; NaN where absent.

    Ignored voxels (reference -1) do not count.
    """
    foreground = np.where(largest_component(prediction > 0), prediction, 0)
    candidates = (
        prediction,
        foreground,
        largest_of_each(prediction),
        largest_of_each(foreground),
    )
    valid = reference >= 0
    truth = reference[valid]
    rows = [_dice(candidate[valid], truth, labels + 1) for candidate in candidates]
    return np.stack(rows)


def _dice(prediction: Array, reference: Array, count: int) -> Array:
    pairs = prediction.astype(np.int32) * count + reference
    joint = np.bincount(pairs, minlength=count * count).reshape(count, count)
    total = joint.sum(0) + joint.sum(1)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * joint.diagonal() / total)[1:]


def _mean_over_cases(dice: Array) -> Array:
    known = ~np.isnan(dice)
    mean = np.nansum(dice, axis=0) / np.maximum(known.sum(0), 1)
    return np.asarray(np.where(known.any(0), mean, np.nan))


def _note(what: str, before: float, after: float, kept: bool) -> str:
    verdict = "kept" if kept else "left out"
    return (
        f"largest component of {what}: {before:.5f} -> {after:.5f} Dice on "
        f"validation, {verdict}"
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
