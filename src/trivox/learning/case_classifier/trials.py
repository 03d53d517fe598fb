"""Candidates for the classifier of cases: each is scored by what it says of rows that
it has not seen.
"""

from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from scipy.special import softmax

from trivox.learning.case_classifier.kinds import FITS, SETTINGS
from trivox.learning.case_classifier.network import logits_of, standardise
from trivox.learning.case_classifier.rows import CaseRows, scaling_of, telling
from trivox.volumes.volume import Array

UNSEEN = -30.0
"""Logit of a class that no training row has."""
FLOOR = 0.01
"""Share of the uniform answer mixed into probabilities before they are scored: one sure
error must not decide.
"""
TEMPERATURES = np.geomspace(0.1, 20, 40)


class CandidateRow(TypedDict):
    """A candidate in the report of a run."""

    kind: str
    settings: dict[str, float]
    subset: str
    features: int
    log_loss: float
    temperature: float


@dataclass(frozen=True)
class KindSetting:
    """One kind with its setting; its logits count divided by the temperature."""

    kind: str
    setting: float
    temperature: float = 1.0


@dataclass(frozen=True)
class Columns:
    """Which features a candidate is fitted on: columns of a named subset; few: the best
    so many of them, chosen anew on the rows of each fit.
    """

    subset: str
    places: tuple[int, ...]
    few: int | None = None

    def __str__(self) -> str:
        return self.subset if self.few is None else f"{self.subset}, best {self.few}"


@dataclass(frozen=True, eq=False)
class Trial:
    """One candidate: how it is fitted (several parts: their mean logits), and what it
    said of each row out of fold.

    logits: `(n, k)`, to be divided by the temperature; losses: weighted log loss of
    each row at that temperature; score: their mean.
    """

    parts: tuple[KindSetting, ...]
    columns: Columns
    logits: Array
    temperature: float
    losses: Array
    score: float

    @property
    def kind(self) -> str:
        """The kinds in words."""
        return " + ".join(part.kind for part in self.parts)

    @property
    def calibrated(self) -> Array:
        """Logits `(n, k)` at the candidate's temperature."""
        return self.logits / self.temperature

    def row(self) -> CandidateRow:
        """Ready for JSON."""
        chosen = [part for part in self.parts if len(SETTINGS[part.kind]) > 1]
        return {
            "kind": self.kind,
            "settings": {part.kind: part.setting for part in chosen},
            "subset": str(self.columns),
            "features": self.columns.few or len(self.columns.places),
            "log_loss": self.score,
            "temperature": self.temperature,
        }


def try_out(rows: CaseRows, part: KindSetting, columns: Columns, seed: int) -> Trial:
    """One kind with one setting, by cross-validation over the folds of the rows."""
    logits = np.full((len(rows.answers), rows.answers.max() + 1), UNSEEN)
    narrow = replace(rows, features=rows.features[:, columns.places])
    for fold in np.unique(rows.fold):
        held_out = rows.fold == fold
        training = narrow.take(~held_out)
        present, answers = np.unique(training.answers, return_inverse=True)
        if len(present) < 2:
            # all other rows are of one class: nothing is known of these
            logits[held_out] = 0
            continue
        scaling = scaling_of(training.features)
        x = standardise(training.features, *scaling)
        best = telling(x, answers, columns.few)
        weights = training.weights / training.weights.mean()
        networks = FITS[part.kind](x[:, best], answers, weights, part.setting, seed)
        unseen = standardise(narrow.features[held_out], *scaling)
        logits[np.ix_(held_out, present)] = logits_of(networks, unseen[:, best])
    return scored(rows, (part,), columns, logits)


def try_together(rows: CaseRows, trials: list[Trial], columns: Columns) -> Trial:
    """Several candidates of one part each as one: the mean of their calibrated logits."""
    parts = tuple(
        replace(trial.parts[0], temperature=trial.temperature) for trial in trials
    )
    logits = np.mean([trial.calibrated for trial in trials], axis=0)
    return scored(rows, parts, columns, logits)


def scored(
    rows: CaseRows, parts: tuple[KindSetting, ...], columns: Columns, logits: Array
) -> Trial:
    """The candidate with its temperature, and its log loss at that."""
    losses = [rows.weights * _losses(logits / t, rows.answers) for t in TEMPERATURES]
    scores = [float(np.mean(each)) for each in losses]
    best = int(np.argmin(scores))
    return Trial(
        parts=parts,
        columns=columns,
        logits=logits,
        temperature=float(TEMPERATURES[best]),
        losses=losses[best],
        score=scores[best],
    )


def _losses(logits: Array, answers: Array) -> Array:
    """Log loss of each row, with a little of the uniform answer mixed in."""
    right = softmax(logits, axis=1)[np.arange(len(answers)), answers]
    return np.asarray(-np.log((1 - FLOOR) * right + FLOOR / logits.shape[1]))
