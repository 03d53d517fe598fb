"""The section `classification` of metrics.json: one classifier beside what it must
beat, and what to be wary of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trivox.errors import DataError
from trivox.evaluation.metrics.classification import (
    COMPARED,
    CONVENTION,
    ClassPredictions,
    Integers,
    Measured,
    Summary,
    majority_answer,
    measure_classes,
)
from trivox.evaluation.metrics.statistics import RESAMPLES

THIS, MAJORITY = "this model", "majority answer"
LARGE_GAP, WIDE_INTERVAL = 0.2, 0.3


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
) -> dict[str, Any]:
    """What metrics.json holds about the classes of cases; scores are over the cases
    whose class is known.

    predictions: of cases that were not learnt from. rows: name -> what else was tried
    on the same cases (a single feature, the head...); the majority answer of the
    classes in `training` (default: of these cases) is added. resubstitution: the same
    classifier on cases that it was fitted on. classifier: facts by fold. folds, flags:
    by case. Raises `DataError` if no class is known or a row lacks a case.
    """
    ours = Measured.of(predictions, seed=seed, resamples=resamples)
    summary = ours.summary()
    others = {MAJORITY: majority_answer(predictions, training), **(rows or {})}
    compared = []
    for name, other in others.items():
        theirs = Measured.of(
            _aligned(name, other, predictions), seed=seed, resamples=resamples
        )
        compared.append(
            {
                "name": name,
                "summary": theirs.summary(),
                "difference": ours.difference(theirs),
            }
        )
    learnt = (
        None
        if resubstitution is None
        else measure_classes(resubstitution, seed=seed, resamples=1)
    )
    on_own = {name: learnt[name]["value"] for name in COMPARED} if learnt else None
    gap = (
        {name: _difference(on_own[name], summary[name]["value"]) for name in COMPARED}
        if on_own
        else None
    )
    return {
        "convention": dict(CONVENTION),
        "classes": list(predictions.classes),
        "cases": _cases(predictions, folds or {}, flags or {}),
        "summary": summary,
        "rows": [{"name": THIS, "summary": summary}, *compared],
        "resubstitution": on_own,
        "gap": gap,
        "classifier": dict(classifier or {}),
        "warnings": [*warnings, *_warnings(summary, compared[0], on_own)],
    }


def _aligned(
    name: str, other: ClassPredictions, predictions: ClassPredictions
) -> ClassPredictions:
    """The cases of `predictions`, in their order, as `other` answered them."""
    place = {case: i for i, case in enumerate(other.names)}
    missing = [case for case in predictions.names if case not in place]
    if missing or other.classes != predictions.classes:
        told = (
            f"lacks {', '.join(missing[:5])}"
            if missing
            else f"has the classes {', '.join(other.classes)}"
        )
        raise DataError(
            f"row '{name}' {told}; a row needs the classes and cases of the model it stands beside"
        )
    order = np.array([place[case] for case in predictions.names], dtype=np.int64)
    return ClassPredictions(
        predictions.names, predictions.truth, other.probabilities[order], other.classes
    )


def _cases(
    predictions: ClassPredictions,
    folds: Mapping[str, str],
    flags: Mapping[str, Sequence[str]],
) -> dict[str, dict[str, Any]]:
    classes = predictions.classes
    found = {}
    for i, name in enumerate(predictions.names):
        truth = int(predictions.truth[i])
        found[name] = {
            "class": classes[truth] if truth >= 0 else None,
            "answer": classes[predictions.answers[i]],
            "probabilities": dict(
                zip(classes, predictions.probabilities[i].tolist(), strict=True)
            ),
            "fold": folds.get(name),
            "flags": list(flags.get(name, ())),
        }
    return found


def _difference(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first - second


def _warnings(
    summary: Summary,
    majority: Mapping[str, Any],
    resubstitution: Mapping[str, Any] | None,
) -> list[str]:
    f1, support = summary["macro_f1"], summary["support"]
    found = []
    absent = [name for name, cases in support.items() if not cases]
    if absent:
        found.append(
            f"no case has the class {', '.join(absent)}: it lowers macro-F1, and AUC is not known; measure on "
            "cases of every class"
        )
    answered = np.sum(summary["confusion"], axis=0)
    never = [
        name
        for name, count in zip(support, answered, strict=True)
        if support[name] and not count
    ]
    if never:
        found.append(
            f"never answered: {', '.join(never)}, the class of {sum(support[name] for name in never)} of "
            f"{sum(support.values())} cases; look at the training monitor, then try "
            "classification.classifier=lda, classification.imbalance=logit_adjustment or a larger "
            "classification.lesion_fraction"
        )
    if resubstitution and resubstitution["macro_f1"] - f1["value"] > LARGE_GAP:
        found.append(
            f"learnt by heart: macro-F1 is {resubstitution['macro_f1']:.2f} on the cases it was fitted on and "
            f"{f1['value']:.2f} on others; try classification.classifier=lda, a smaller classification.width, "
            "or more cases"
        )
    low, high = f1["ci95"] or (0.0, 1.0)
    if high - low > WIDE_INTERVAL:
        found.append(
            f"{sum(support.values())} cases are too few to compare models on: the interval of macro-F1 goes from "
            f"{low:.2f} to {high:.2f}"
        )
    above = majority["difference"]["macro_f1"]["ci95"]
    if above is None or above[0] <= 0:
        found.append("macro-F1 is not measurably above that of the majority answer")
    return found
