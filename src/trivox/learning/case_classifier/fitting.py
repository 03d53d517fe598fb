"""Fitting a classifier of cases: features and settings are chosen by cross-validation
within the training cases.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import softmax

from trivox.errors import DataError, RecipeError
from trivox.learning.case_classifier.classifier import CaseClassifier, standardise
from trivox.learning.case_classifier.kinds import (
    FITS,
    SETTINGS,
    Network,
    logits_of,
    scaled,
)
from trivox.learning.case_classifier.rows import (
    CaseRows,
    Imbalance,
    case_rows,
    scaling_of,
    telling,
    usable_columns,
)
from trivox.volumes.volume import Array

__all__ = [
    "CaseClassifier",
    "FittedClassifier",
    "best_single_feature",
    "fit_classifier",
]

KINDS = ("lda", "logreg", "mlp")
UNSEEN = -30.0
"""Logit of a class that no training row has."""
FLOOR = 0.01
"""Share of the uniform answer mixed into probabilities before they are scored: one sure
error must not decide.
"""
FEW = (1, 4, 16)
"""Numbers of features that are tried besides all of the first subset: where one tells
the classes, others are in its way.
"""
TEMPERATURES = np.geomspace(0.1, 20, 40)


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A classifier and how it came to be.

    candidates: what was tried, ready for JSON: first the one taken, then the others by
    score; out_of_fold: probabilities `(n, k)` of each row by classifiers that had not
    seen its group (slightly flattered by the choice); resubstitution: by the classifier
    itself, which has seen them.
    """

    classifier: CaseClassifier
    candidates: tuple[dict[str, Any], ...]
    out_of_fold: Array
    resubstitution: Array


@dataclass(frozen=True)
class _Part:
    """One kind with its setting; its logits count divided by the temperature."""

    kind: str
    setting: float
    temperature: float = 1.0


@dataclass(frozen=True, eq=False)
class _Trial:
    """One candidate: how it is fitted (several parts: their mean logits), and what it
    said of each row out of fold.
    """

    parts: tuple[_Part, ...]
    subset: str
    columns: tuple[int, ...]
    few: int | None
    logits: Array
    temperature: float
    losses: Array
    score: float

    def row(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "kind": " + ".join(part.kind for part in self.parts),
            "settings": {
                part.kind: part.setting
                for part in self.parts
                if len(SETTINGS[part.kind]) > 1
            },
            "subset": self.subset + ("" if self.few is None else f", best {self.few}"),
            "features": self.few or len(self.columns),
            "log_loss": self.score,
            "temperature": self.temperature,
        }


def fit_classifier(
    features: Array,
    classes: Array,
    *,
    names: Sequence[str],
    class_names: Sequence[str],
    subsets: Mapping[str, Sequence[str]],
    kinds: Sequence[str] = KINDS,
    groups: Sequence[str] | None = None,
    weights: Array | None = None,
    imbalance: Imbalance = "balanced",
    seed: int = 0,
    folds: int = 5,
) -> FittedClassifier:
    """Choose settings and subset by cross-validation, fit on all rows, and calibrate;
    several kinds answer together.

    Their log-probabilities are averaged, each after its own calibration: on small
    cohorts the kind that comes out best is mostly the one that had luck. features: `(n,
    f)`, NaN where not known; classes: `(n,)` indices into class_names; names: of the
    columns; subsets: named lists of columns to try, the simplest first, which is taken
    unless another is better beyond chance; groups: patient of each row, never on both
    sides; weights: of rows, above 0; imbalance: balanced gives every class the same
    say, so that probabilities refer to equally frequent classes. Candidates are scored
    by the log loss of their out-of-fold answers after calibration by one temperature
    (Guo et al. 2017). Deterministic for a seed. Raises `RecipeError` for kinds or
    subsets that do not exist, `DataError` for rows that nothing can be learnt from.
    """
    _check_choice(kinds, subsets, names)
    rows, present = case_rows(
        features, classes, names, class_names, groups, weights, imbalance, seed, folds
    )
    trials = [
        _trials(rows, subset, names, wanted, kinds, few, seed)
        for number, (subset, wanted) in enumerate(subsets.items())
        for few in (
            None,
            *(few for few in FEW if number == 0 and 2 * few < len(wanted)),
        )
    ]
    if not any(trials):
        raise DataError(
            "no feature differs between the training cases: nothing to tell the classes by; check the masks"
        )
    trial = _simplest([together for *_, together in filter(None, trials)])
    others = sorted(
        (other for found in trials for other in found if other is not trial),
        key=lambda other: other.score,
    )
    classifier = _fitted(rows, trial, names, class_names, present, seed)
    places = {name: i for i, name in enumerate(names)}
    return FittedClassifier(
        classifier,
        tuple(one.row() for one in (trial, *others)),
        softmax(trial.logits / trial.temperature, axis=1)
        @ np.eye(len(class_names))[present],
        classifier.probabilities(
            rows.features[:, [places[name] for name in classifier.names]]
        ),
    )


def _simplest(trials: Sequence[_Trial]) -> _Trial:
    """The first of the candidates, given from simple to complex, that is not worse than
    the best beyond chance.

    One standard error of the paired difference (Breiman et al. 1984): among many
    candidates the best is partly luck.
    """
    best = min(trials, key=lambda trial: trial.score)
    for trial in trials:
        worse = trial.losses - best.losses
        if worse.mean() <= worse.std() / len(worse) ** 0.5:
            return trial
    return best


def _trials(
    rows: CaseRows,
    subset: str,
    names: Sequence[str],
    wanted: Sequence[str],
    kinds: Sequence[str],
    few: int | None,
    seed: int,
) -> list[_Trial]:
    """One trial a kind, of its best setting; last, if there are several, all kinds
    together.

    Nothing if no column is usable.
    """
    place = {name: i for i, name in enumerate(names)}
    columns = usable_columns(rows.features, [place[name] for name in wanted])
    if not columns:
        return []
    found = []
    for kind in kinds:
        tried = [
            _trial(rows, _Part(kind, setting), subset, columns, seed, few=few)
            for setting in SETTINGS[kind]
        ]
        found.append(min(tried, key=lambda trial: trial.score))
    if len(found) == 1:
        return found
    parts = tuple(
        replace(trial.parts[0], temperature=trial.temperature) for trial in found
    )
    logits = np.mean([trial.logits / trial.temperature for trial in found], axis=0)
    return [*found, _scored(rows, parts, subset, columns, logits, few=few)]


def _trial(
    rows: CaseRows,
    part: _Part,
    subset: str,
    columns: tuple[int, ...],
    seed: int,
    *,
    few: int | None = None,
) -> _Trial:
    """Out-of-fold logits of one kind with one setting; few: on so many columns, chosen
    anew on the rows of each fit.
    """
    logits = np.full((len(rows.answers), rows.answers.max() + 1), UNSEEN)
    narrow = replace(rows, features=rows.features[:, columns])
    for fold in np.unique(rows.fold):
        held = rows.fold == fold
        training = narrow.take(~held)
        seen, answers = np.unique(training.answers, return_inverse=True)
        if len(seen) < 2:  # all other rows are of one class: nothing is known of these
            logits[held] = 0
            continue
        scaling = scaling_of(training.features)
        x = standardise(training.features, *scaling)
        kept = telling(x, answers, few)
        networks = FITS[part.kind](
            x[:, kept],
            answers,
            training.weights / training.weights.mean(),
            part.setting,
            seed,
        )
        logits[np.ix_(held, seen)] = logits_of(
            networks, standardise(narrow.features[held], *scaling)[:, kept]
        )
    return _scored(rows, (part,), subset, columns, logits, few=few)


def _scored(
    rows: CaseRows,
    parts: tuple[_Part, ...],
    subset: str,
    columns: tuple[int, ...],
    logits: Array,
    *,
    few: int | None = None,
) -> _Trial:
    """The candidate with its temperature, and its log loss at that."""
    scores = [
        float(np.mean(rows.weights * _losses(logits / t, rows.answers)))
        for t in TEMPERATURES
    ]
    best = int(np.argmin(scores))
    losses = rows.weights * _losses(logits / TEMPERATURES[best], rows.answers)
    return _Trial(
        parts,
        subset,
        columns,
        few,
        logits,
        float(TEMPERATURES[best]),
        losses,
        scores[best],
    )


def _fitted(
    rows: CaseRows,
    trial: _Trial,
    names: Sequence[str],
    class_names: Sequence[str],
    present: Array,
    seed: int,
) -> CaseClassifier:
    """The chosen candidate on all rows."""
    every = rows.features[:, trial.columns]
    kept = telling(standardise(every, *scaling_of(every)), rows.answers, trial.few)
    columns = tuple(trial.columns[i] for i in kept)
    chosen = rows.features[:, columns]
    scaling = scaling_of(chosen)
    x = standardise(chosen, *scaling)
    fitted = [
        FITS[part.kind](x, rows.answers, rows.weights, part.setting, seed)
        for part in trial.parts
    ]
    total = sum(len(networks) for networks in fitted)
    networks: list[Network] = []
    for part, own in zip(
        trial.parts, fitted, strict=True
    ):  # the mean over all networks gives every part the same say
        networks += scaled(own, total / (len(own) * len(fitted) * part.temperature))
    return CaseClassifier(
        tuple(names[i] for i in columns),
        *scaling,
        tuple(
            _for_all_classes(
                network, present, len(class_names), UNSEEN * trial.temperature
            )
            for network in networks
        ),
        trial.temperature,
        tuple(class_names),
        trial.row()["kind"],
    )


def _for_all_classes(
    network: Network, present: Array, size: int, bias_of_unseen: float
) -> Network:
    """The network with an output for every class; those without training rows are all
    but impossible.
    """
    *hidden, (weight, bias) = network
    all_weights, all_biases = (
        np.zeros((size, weight.shape[1])),
        np.full(size, bias_of_unseen),
    )
    all_weights[present], all_biases[present] = weight, bias
    return (*hidden, (all_weights, all_biases))


def best_single_feature(
    features: Array,
    classes: Array,
    *,
    names: Sequence[str],
    class_names: Sequence[str],
    groups: Sequence[str] | None = None,
    seed: int = 0,
    folds: int = 5,
) -> CaseClassifier:
    """A logistic regression on the one feature that tells the classes best, as
    `names[0]` of what is returned.

    Chosen by the mean one-versus-rest AUC of out-of-fold answers; arguments and errors
    as of `fit_classifier`.
    """
    rows, present = case_rows(
        features, classes, names, class_names, groups, None, "balanced", seed, folds
    )
    usable = usable_columns(rows.features, range(len(names)))
    if not usable:
        raise DataError(
            "no feature differs between the training cases: nothing to tell the classes by; check the masks"
        )
    areas = [
        _area(_trial(rows, _Part("lda", 0), "", (column,), seed), rows.answers)
        for column in usable
    ]
    column = usable[int(np.argmax(areas))]
    trial = _trial(rows, _Part("logreg", 1.0), names[column], (column,), seed)
    return _fitted(rows, trial, names, class_names, present, seed)


def _area(trial: _Trial, answers: Array) -> float:
    """Mean one-versus-rest area under the ROC curve: how often a row of a class is
    ranked above one of another class.
    """
    from scipy.stats import rankdata  # takes a second to import

    found = []
    for index, told in enumerate(softmax(trial.logits, axis=1).T):
        own = answers == index
        above = rankdata(told)[own].sum() - own.sum() * (own.sum() + 1) / 2
        found.append(above / (own.sum() * (~own).sum()))
    return float(np.mean(found))


def _check_choice(
    kinds: Sequence[str], subsets: Mapping[str, Sequence[str]], names: Sequence[str]
) -> None:
    if not kinds or any(kind not in FITS for kind in kinds):
        raise RecipeError(
            f"recipe setting 'classification.classifier': {list(kinds)} must be some of {', '.join(FITS)}"
        )
    strange = [
        name for wanted in subsets.values() for name in wanted if name not in set(names)
    ]
    if strange or not subsets:
        raise RecipeError(
            f"subsets of features: '{(strange or ['none'])[0]}' is not among the {len(names)} features"
        )


def _losses(logits: Array, answers: Array) -> Array:
    """Log loss of each row, with a little of the uniform answer mixed in."""
    told = softmax(logits, axis=1)[np.arange(len(answers)), answers]
    return np.asarray(-np.log((1 - FLOOR) * told + FLOOR / logits.shape[1]))
