"""The section `classification` of metrics.json: one classifier beside what it must
beat, and what to be wary of.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from trivox.errors import DataError
from trivox.evaluation.metrics.class_content import (
    ClassCase,
    ClassDifference,
    ClassificationSection,
    ClassRow,
    ClassSummary,
    ClassValues,
)
from trivox.evaluation.metrics.classification import (
    CONVENTION,
    RESAMPLES,
    ClassPredictions,
    ClassScores,
    Integers,
    majority_answer,
    measure_classes,
)

THIS = "this model"
MAJORITY = "majority answer"
LARGE_GAP = 0.2
"""Of macro-F1 on the fitted cases over that on others, from which a warning says so."""
WIDE_INTERVAL = 0.3
"""Of macro-F1, from which a warning says that the cases are too few."""


def classification_section(
    predictions: ClassPredictions,
    *,
    seed: int,
    rows: Mapping[str, ClassPredictions] | None = None,
    training: Integers | None = None,
    resubstitution: ClassPredictions | None = None,
    classifier: Mapping[str, Any] | None = None,
    folds: Mapping[str, str] | None = None,
    flags: Mapping[str, Sequence[str]] | None = None,
    warnings: Sequence[str] = (),
    resamples: int = RESAMPLES,
) -> ClassificationSection:
    """What metrics.json holds about the classes of cases; scores are over the cases
    whose class is known.

    predictions: of cases that were not learnt from. rows: name -> what else was tried
    on the same cases (a single feature, the head...); the majority answer of the
    classes in `training` (default: of these cases) is added. resubstitution: the same
    classifier on cases that it was fitted on. classifier: facts by fold. folds, flags:
    by case. Raises `DataError` if no class is known or a row lacks a case.
    """
    measure = partial(ClassScores.of, seed=seed, resamples=resamples)
    scores = measure(predictions)
    summary = scores.summary()
    tried = {MAJORITY: majority_answer(predictions, training), **(rows or {})}
    compared = [
        _row(name, measure(_aligned(name, other, predictions)), scores)
        for name, other in tried.items()
    ]
    learnt: ClassValues | None = None
    gap: ClassValues | None = None
    if resubstitution is not None:
        learnt = _values(measure_classes(resubstitution, seed=seed, resamples=1))
        gap = _gap(learnt, _values(summary))
    return {
        "convention": dict(CONVENTION),
        "classes": list(predictions.classes),
        "cases": _cases(predictions, folds or {}, flags or {}),
        "summary": summary,
        "rows": [{"name": THIS, "summary": summary}, *compared],
        "resubstitution": learnt,
        "gap": gap,
        "classifier": dict(classifier or {}),
        "warnings": [
            *warnings,
            *_unanswered(summary),
            *_unsure(summary, learnt, above_majority=compared[0]["difference"]),
        ],
    }


def _row(name: str, others: ClassScores, scores: ClassScores) -> ClassRow:
    """What else was tried, and how much better this model is."""
    return {
        "name": name,
        "summary": others.summary(),
        "difference": scores.difference(others),
    }


def _aligned(
    name: str, other: ClassPredictions, predictions: ClassPredictions
) -> ClassPredictions:
    """The cases of `predictions`, in their order, as `other` answered them."""
    place = {case: i for i, case in enumerate(other.names)}
    missing = [case for case in predictions.names if case not in place]
    advice = "a row needs the classes and cases of the model it stands beside"
    if missing:
        raise DataError(f"row '{name}' lacks {', '.join(missing[:5])}; {advice}")
    if other.classes != predictions.classes:
        classes = ", ".join(other.classes)
        raise DataError(f"row '{name}' has the classes {classes}; {advice}")
    order = np.array([place[case] for case in predictions.names], dtype=np.int64)
    return ClassPredictions(
        predictions.names, predictions.truth, other.probabilities[order], other.classes
    )


def _cases(
    predictions: ClassPredictions,
    folds: Mapping[str, str],
    flags: Mapping[str, Sequence[str]],
) -> dict[str, ClassCase]:
    """Class, answer and probabilities of each case."""
    classes = predictions.classes
    probabilities = predictions.probabilities.tolist()
    cases: dict[str, ClassCase] = {}
    for i, name in enumerate(predictions.names):
        truth = int(predictions.truth[i])
        cases[name] = {
            "class": classes[truth] if truth >= 0 else None,
            "answer": classes[predictions.answers[i]],
            "probabilities": dict(zip(classes, probabilities[i], strict=True)),
            "fold": folds.get(name),
            "flags": list(flags.get(name, ())),
        }
    return cases


def _values(summary: ClassSummary) -> ClassValues:
    """The scores that are compared, without their intervals."""
    return {"macro_f1": summary["macro_f1"]["value"], "auc": summary["auc"]["value"]}


def _gap(first: ClassValues, second: ClassValues) -> ClassValues:
    """First minus second."""
    return {
        "macro_f1": _difference(first["macro_f1"], second["macro_f1"]),
        "auc": _difference(first["auc"], second["auc"]),
    }


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _unanswered(summary: ClassSummary) -> list[str]:
    """Warnings about classes without cases, and classes that are never answered."""
    support = summary["support"]
    warnings = []
    absent = [name for name, cases in support.items() if not cases]
    if absent:
        warnings.append(
            f"no case has the class {', '.join(absent)}: it lowers macro-F1, and AUC is "
            "not known; measure on cases of every class"
        )
    answered = dict(zip(support, np.sum(summary["confusion"], axis=0), strict=True))
    never = [name for name, cases in support.items() if cases and not answered[name]]
    if never:
        overlooked = sum(support[name] for name in never)
        warnings.append(
            f"never answered: {', '.join(never)}, the class of {overlooked} of "
            f"{sum(support.values())} cases; look at the training monitor, then try "
            "classification.classifier=lda, classification.imbalance=logit_adjustment "
            "or a larger classification.lesion_fraction"
        )
    return warnings


def _unsure(
    summary: ClassSummary,
    learnt: ClassValues | None,
    *,
    above_majority: ClassDifference,
) -> list[str]:
    """Warnings about scores that will not hold: on other cases, or at all."""
    score = summary["macro_f1"]
    f1 = score["value"] or 0.0
    warnings = []
    if learnt is not None and (learnt["macro_f1"] or 0.0) - f1 > LARGE_GAP:
        warnings.append(
            f"learnt by heart: macro-F1 is {learnt['macro_f1']:.2f} on the cases it was "
            f"fitted on and {f1:.2f} on others; try classification.classifier=lda, a "
            "smaller classification.width, or more cases"
        )
    low, high = score["ci95"] or (0.0, 1.0)
    if high - low > WIDE_INTERVAL:
        warnings.append(
            f"{sum(summary['support'].values())} cases are too few to compare models "
            f"on: the interval of macro-F1 goes from {low:.2f} to {high:.2f}"
        )
    interval = above_majority["macro_f1"]["ci95"]
    if interval is None or interval[0] <= 0:
        warnings.append("macro-F1 is not measurably above that of the majority answer")
    return warnings
