"""Intervals of volumes for cases that are not like those of validation: validation cases
count by how much their images look like the new ones.

Weighted split conformal prediction (Tibshirani et al. 2019, "Conformal prediction under
covariate shift", arXiv:1904.06019) with likelihood ratios of a classifier that tells the
images of new cases from those of validation. It holds as far as the ratios are right, and
what truth belongs to what image has not changed.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from trivox.inference.doubt.conformal import (
    FARTHEST,
    LEVEL,
    VolumeBand,
    VolumeIntervals,
)
from trivox.inference.doubt.likeness import FEATURES, Look
from trivox.schema import Frozen
from trivox.volumes.volume import Array

FEWEST_NEW = 20
"""New cases of which a classifier learns what they look like."""
FEWEST_EFFECTIVE = 19.0
"""Validation cases that have to be left after weighing: from so many on an interval has
two bounds of its own."""
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Weights of the cases beside the penalty (C of scikit-learn) that are tried."""
FOLDS = 5
DIGITS = 4
"""Of features in a bundle."""
RULE = (
    "as without weights, but validation case i counts as w_i / (sum of all w + w of the "
    "new case), and the new case itself as the rest, beyond all others; w: odds of being "
    "a new case by a logistic regression of the look of the image (intensities and edges "
    "on the network's grid, logarithms of spacing and size), its penalty chosen by "
    f"{FOLDS}-fold cross-validation; effective_cases: (sum of w)^2 / sum of w^2 of "
    f"validation cases; without weights where these are fewer than {FEWEST_EFFECTIVE:g}, "
    f"where there are fewer than {FEWEST_NEW} new cases, or where the new case weighs too "
    "much"
)
TOO_FAR = (
    "hardly any validation case looks like this one: validation cases are not weighed, "
    "and the interval may not hold"
)

Floats = NDArray[np.float64]
Finite = Annotated[float, Field(ge=-1e12, le=1e12)]
Ratio = Annotated[float, Field(ge=-FARTHEST, le=FARTHEST)]


class VolumeCases(Frozen):
    """The validation cases that intervals of volumes were learnt on: what the image of
    each looks like, and the logarithm of true over predicted volume of each target.
    """

    looks: tuple[tuple[Finite, ...], ...]
    ratios: dict[str, tuple[Ratio, ...]]

    @model_validator(mode="after")
    def _of_one_length(self) -> Self:
        if len({len(look) for look in self.looks}) != 1:
            raise ValueError("looks are of different lengths, or there are none")
        for target, ratios in self.ratios.items():
            if len(ratios) != len(self.looks):
                raise ValueError(
                    f"{len(ratios)} ratios of {target} for {len(self.looks)} looks"
                )
        return self


@dataclass(frozen=True, eq=False)
class Weights:
    """How much validation cases `(n,)` count, and new ones `(m,)`."""

    known: Floats
    new: Floats

    @property
    def effective(self) -> float:
        """Of how many equal validation cases they are worth (Kish 1965)."""
        return float(self.known.sum() ** 2 / (self.known**2).sum())


@dataclass(frozen=True, eq=False)
class CaseVolumes:
    """What is known of the volumes of a new case where validation cases are weighed.

    intervals: with their bands for this case; None for a target, or altogether, where
    weights are of no use, of which `why_not` says why.
    """

    intervals: VolumeIntervals | None
    effective: float
    why_not: str

    @property
    def is_weighted(self) -> bool:
        """Whether any target has an interval from weights."""
        return self.intervals is not None and any(self.intervals.targets.values())

    def interval(self, target: str, volume_ml: float) -> tuple[float, float] | None:
        """Bounds in ml for a predicted volume; None without weights."""
        if self.intervals is None:
            return None
        return self.intervals.interval(target, volume_ml)


@dataclass(frozen=True, eq=False)
class Cohort:
    """New cases that are asked together, by name.

    remark: in a line; looks: a hash over those of the images.
    """

    cases: Mapping[str, CaseVolumes]
    effective: float | None
    remark: str
    looks: str

    @property
    def settings(self) -> dict[str, object]:
        """What predictions.json says of it, ready for JSON."""
        return {
            "new_cases": len(self.cases),
            "weighted_cases": sum(case.is_weighted for case in self.cases.values()),
            "effective_cases": self.effective,
            "looks": self.looks,
            "rule": RULE,
        }


def weigh_cohort(
    known: VolumeCases, intervals: VolumeIntervals, looks: Mapping[str, Floats]
) -> Cohort:
    """From what the validation cases and the images of the new ones, by name, look like."""
    digest = _digest_of(looks)
    count = len(known.looks)
    if len(looks) < FEWEST_NEW:
        why_not = (
            f"{len(looks)} new cases, fewer than {FEWEST_NEW}, do not tell what images "
            "look like here: validation cases are not weighed"
        )
        useless = CaseVolumes(None, float(count), why_not)
        return Cohort(dict.fromkeys(looks, useless), None, why_not, digest)
    weights = likelihood_ratios(np.array(known.looks), np.stack(list(looks.values())))
    effective = weights.effective
    if effective < FEWEST_EFFECTIVE:
        why_not = (
            f"the images are so unlike those of validation that of {count} cases "
            f"{effective:.2f} are left to learn from, fewer than {FEWEST_EFFECTIVE:g}: "
            "validation cases are not weighed, and the interval may not hold"
        )
        useless = CaseVolumes(None, effective, why_not)
        return Cohort(dict.fromkeys(looks, useless), effective, why_not, digest)
    cases = {}
    for name, weight in zip(looks, weights.new.tolist(), strict=True):
        bands = {
            target: weighted_band(
                np.array(ratios), weights.known, weight, intervals.level
            )
            for target, ratios in known.ratios.items()
        }
        of_case = intervals.model_copy(update={"targets": bands, "rule": RULE})
        cases[name] = CaseVolumes(of_case, effective, TOO_FAR)
    without = sum(not case.is_weighted for case in cases.values())
    remark = (
        f"{count} validation cases count as {effective:.1f} by how much they look like "
        f"the {len(looks)} new ones, of which {without} are too unlike any of them"
    )
    return Cohort(cases, effective, remark, digest)


def _digest_of(looks: Mapping[str, Floats]) -> str:
    """A short hash; rounding on another device does not change it, as a rule."""
    digest = hashlib.sha256()
    for name in sorted(looks):
        numbers = [f"{number:.3g}" for number in looks[name]]
        digest.update(" ".join([name, *numbers, "\n"]).encode())
    return digest.hexdigest()[:12]


def numbers_of_look(channels: int) -> int:
    """How many numbers `features_of` gives."""
    return channels * FEATURES + 6


def features_of(look: Look) -> Floats:
    """The look of an image as numbers `(f,)`; those of an absent channel are 0."""
    lengths = np.log([*look.spacing, *look.size])
    numbers = np.concatenate([np.nan_to_num(look.features).reshape(-1), lengths])
    return np.array([float(f"{number:.{DIGITS}g}") for number in numbers])


def learn_cases(
    looks: Mapping[str, Look], ratios: Mapping[str, Mapping[str, float]]
) -> VolumeCases | None:
    """From the looks of images, and ratios by target and case; None where weighing could
    never leave enough cases.
    """
    names = list(next(iter(ratios.values()), {}))
    if len(names) < FEWEST_EFFECTIVE:
        return None
    rows = tuple(tuple(features_of(looks[name]).tolist()) for name in names)
    by_target = {
        target: tuple(by_case[name] for name in names)
        for target, by_case in ratios.items()
    }
    return VolumeCases(looks=rows, ratios=by_target)


def likelihood_ratios(known: Array, new: Array, *, seed: int = 0) -> Weights:
    """How much more often images that look so are among the new cases `(m, f)` than
    among those of validation `(n, f)`; 1 for all where nothing tells them apart.
    """
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    rows = np.concatenate([known, new])
    is_new = np.arange(len(rows)) >= len(known)
    spread = rows.std(axis=0)
    rows = (rows - rows.mean(axis=0)) / np.where(spread > 1e-9, spread, 1)
    rng = np.random.default_rng(seed)
    folds = np.empty(len(rows), dtype=int)
    for of_kind in (is_new, ~is_new):
        places = rng.permutation(np.flatnonzero(of_kind))
        folds[places] = np.arange(len(places)) % FOLDS
    prior = float(np.log(len(new) / len(known)))
    best = _loss(np.full(len(rows), prior), is_new)
    odds = np.full(len(rows), prior)
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=2000)
        held_out = np.empty(len(rows))
        for fold in range(FOLDS):
            model.fit(rows[folds != fold], is_new[folds != fold])
            held_out[folds == fold] = model.decision_function(rows[folds == fold])
        loss = _loss(held_out, is_new)
        if loss < best:
            best = loss
            odds = model.fit(rows, is_new).decision_function(rows)
    ratios = np.exp(odds - prior)
    return Weights(ratios[: len(known)], ratios[len(known) :])


def _loss(odds: Floats, is_new: NDArray[np.bool_]) -> float:
    return float(np.mean(np.logaddexp(0, np.where(is_new, -odds, odds))))


def weighted_band(
    ratios: Floats, weights: Floats, weight: float, level: float = LEVEL
) -> VolumeBand | None:
    """The band of `trivox.inference.doubt.conformal.RULE` where cases count by `weights`
    `(n,)` and the new one by `weight`; None where that leaves too few.
    """
    total = float(weights.sum()) + weight
    beyond = (1 - level) / 2
    rest = weight / total
    if rest <= beyond + 1e-12:
        low = -_bound(-ratios, weights / total, 1 - beyond)
        high = _bound(ratios, weights / total, 1 - beyond)
        return VolumeBand(low=low, high=high, cases=len(ratios))
    if rest > 1 - level + 1e-12:
        return None
    half = _bound(np.abs(ratios), weights / total, level)
    return VolumeBand(low=-half, high=half, cases=len(ratios))


def _bound(scores: Floats, shares: Floats, level: float) -> float:
    """The smallest score up to which the shares reach the level."""
    order = np.argsort(scores)
    reached = np.cumsum(shares[order])
    return float(scores[order][int((reached < level - 1e-9).sum())])
