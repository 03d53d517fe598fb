"""Fitting a classifier of cases: features and settings are chosen by cross-validation
within the training cases.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from trivox.errors import DataError, RecipeError
from trivox.learning.case_classifier.classifier import CaseClassifier
from trivox.learning.case_classifier.kinds import FITS, SETTINGS
from trivox.learning.case_classifier.network import (
    Network,
    scaled,
    standardise,
    widened,
)
from trivox.learning.case_classifier.rows import (
    CaseRows,
    Imbalance,
    case_rows,
    scaling_of,
    telling,
    usable_columns,
)
from trivox.learning.case_classifier.trials import (
    UNSEEN,
    CandidateRow,
    Columns,
    KindSetting,
    Trial,
    try_out,
    try_together,
)
from trivox.volumes.volume import Array

KINDS = ("lda", "logreg", "mlp")
FEW = (1, 4, 16)
"""Numbers of features that are tried besides all of the first subset: where one tells
the classes, others are in its way.
"""
NOTHING_DIFFERS = (
    "no feature differs between the training cases: nothing to tell the classes by; "
    "check the masks"
)


@dataclass(frozen=True, eq=False)
class FittedClassifier:
    """A classifier and how it came to be.

    candidates: what was tried, ready for JSON: first the one taken, then the others by
    score; out_of_fold: probabilities `(n, k)` of each row by classifiers that had not
    seen its group (slightly flattered by the choice); resubstitution: by the classifier
    itself, which has seen them.
    """

    classifier: CaseClassifier
    candidates: tuple[CandidateRow, ...]
    out_of_fold: Array
    resubstitution: Array


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

    Candidates are scored by the log loss of their out-of-fold answers after calibration
    by one temperature (Guo et al. 2017). The log-probabilities of several kinds are
    averaged, each after its own calibration: on small cohorts the kind that comes out
    best is mostly the one that had luck. Deterministic for a seed.

    features: `(n, f)`, NaN where not known; classes: `(n,)` indices into class_names;
    names: of the columns; subsets: lists of columns to try by name, the simplest first,
    which is taken unless another is better beyond chance; groups: patient of each row,
    never on both sides; weights: of rows, above 0; imbalance: balanced gives every
    class the same say, so that probabilities refer to equally frequent classes. Raises
    `RecipeError` for kinds or subsets that do not exist, `DataError` for rows that
    nothing can be learnt from.
    """
    _check_choice(kinds, subsets, names)
    rows, present = case_rows(
        features, classes, names, class_names, groups, weights, imbalance, seed, folds
    )
    trials: list[Trial] = []
    contenders: list[Trial] = []
    for columns in _column_choices(rows, subsets, names):
        tried = _trials(rows, columns, kinds, seed)
        trials += tried
        contenders.append(tried[-1])
    if not trials:
        raise DataError(NOTHING_DIFFERS)
    chosen = _simplest(contenders)
    others = [trial for trial in trials if trial is not chosen]
    others.sort(key=lambda trial: trial.score)
    classifier = _fitted(rows, chosen, names, class_names, present, seed)
    place = {name: column for column, name in enumerate(names)}
    used = [place[name] for name in classifier.names]
    of_present = softmax(chosen.calibrated, axis=1)
    return FittedClassifier(
        classifier=classifier,
        candidates=tuple(trial.row() for trial in (chosen, *others)),
        out_of_fold=of_present @ np.eye(len(class_names))[present],
        resubstitution=classifier.probabilities(rows.features[:, used]),
    )


def _check_choice(
    kinds: Sequence[str], subsets: Mapping[str, Sequence[str]], names: Sequence[str]
) -> None:
    if not kinds or any(kind not in FITS for kind in kinds):
        raise RecipeError(
            f"recipe setting 'classification.classifier': {list(kinds)} must be some "
            f"of {', '.join(FITS)}"
        )
    if not subsets:
        raise RecipeError("subsets of features: at least one is needed")
    for wanted in subsets.values():
        unknown = [name for name in wanted if name not in set(names)]
        if unknown:
            raise RecipeError(
                f"subsets of features: '{unknown[0]}' is not among the {len(names)} "
                "features"
            )


def _column_choices(
    rows: CaseRows, subsets: Mapping[str, Sequence[str]], names: Sequence[str]
) -> Iterator[Columns]:
    """What may be fitted on, from simple to complex: each subset, and the best few of
    the first; subsets without usable columns are left out.
    """
    place = {name: column for column, name in enumerate(names)}
    first = next(iter(subsets))
    for subset, wanted in subsets.items():
        places = usable_columns(rows.features, [place[name] for name in wanted])
        if not places:
            continue
        yield Columns(subset, places)
        for few in FEW:
            if subset == first and 2 * few < len(wanted):
                yield Columns(subset, places, few)


def _trials(
    rows: CaseRows, columns: Columns, kinds: Sequence[str], seed: int
) -> list[Trial]:
    """One trial a kind, of its best setting; last, if there are several, all kinds
    together.
    """
    trials: list[Trial] = []
    for kind in kinds:
        tried = [
            try_out(rows, KindSetting(kind, setting), columns, seed)
            for setting in SETTINGS[kind]
        ]
        trials.append(min(tried, key=lambda trial: trial.score))
    if len(trials) > 1:
        trials.append(try_together(rows, trials, columns))
    return trials


def _simplest(trials: Sequence[Trial]) -> Trial:
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


def _fitted(
    rows: CaseRows,
    trial: Trial,
    names: Sequence[str],
    class_names: Sequence[str],
    present: Array,
    seed: int,
) -> CaseClassifier:
    """The chosen candidate on all rows; present: the classes that the rows are of."""
    places = trial.columns.places
    every = rows.features[:, places]
    x = standardise(every, *scaling_of(every))
    columns = [places[i] for i in telling(x, rows.answers, trial.columns.few)]
    chosen = rows.features[:, columns]
    fill, mean, scale = scaling_of(chosen)
    x = standardise(chosen, fill, mean, scale)
    # a class without training rows is all but impossible
    unseen = UNSEEN * trial.temperature
    networks = [
        widened(network, present, len(class_names), bias_of_others=unseen)
        for network in _networks(rows, x, trial.parts, seed)
    ]
    return CaseClassifier(
        names=tuple(names[column] for column in columns),
        fill=fill,
        mean=mean,
        scale=scale,
        networks=tuple(networks),
        temperature=trial.temperature,
        classes=tuple(class_names),
        kind=trial.kind,
    )


def _networks(
    rows: CaseRows, x: Array, parts: Sequence[KindSetting], seed: int
) -> list[Network]:
    """Networks of all parts, scaled so that the mean over them gives every part the
    same say.
    """
    fitted = [
        FITS[part.kind](x, rows.answers, rows.weights, part.setting, seed)
        for part in parts
    ]
    total = sum(len(of_part) for of_part in fitted)
    networks: list[Network] = []
    for part, of_part in zip(parts, fitted, strict=True):
        share = total / (len(of_part) * len(parts) * part.temperature)
        networks += scaled(of_part, share)
    return networks


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
        raise DataError(NOTHING_DIFFERS)
    areas: list[float] = []
    for column in usable:
        trial = try_out(rows, KindSetting("lda", 0), Columns("", (column,)), seed)
        areas.append(_area(trial.logits, rows.answers))
    best = usable[int(np.argmax(areas))]
    alone = Columns(names[best], (best,))
    trial = try_out(rows, KindSetting("logreg", 1.0), alone, seed)
    return _fitted(rows, trial, names, class_names, present, seed)


def _area(logits: Array, answers: Array) -> float:
    """Mean one-versus-rest area under the ROC curve: how often a row of a class is
    ranked above one of another class.
    """
    from sklearn.metrics import roc_auc_score  # takes a second to import

    probabilities = softmax(logits, axis=1)
    if probabilities.shape[1] == 2:
        return float(roc_auc_score(answers, probabilities[:, 1]))
    return float(roc_auc_score(answers, probabilities, multi_class="ovr"))
