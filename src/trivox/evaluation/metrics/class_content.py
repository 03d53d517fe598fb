"""The section `classification` of metrics.json, as types; see `content`."""

from typing import Annotated, NotRequired

from pydantic import AfterValidator
from typing_extensions import TypedDict

from trivox.evaluation.metrics.agreement import agreeing_classes
from trivox.evaluation.metrics.numbers import (
    Count,
    Interval,
    MaybeNumber,
    MaybeShare,
    Share,
    ShareInterval,
)


class Score(TypedDict):
    """A score of all cases together, with its 95 % interval; files of 0.1.0 do not say
    its method (it was the percentile bootstrap).
    """

    value: MaybeNumber
    ci95: Interval | None
    method: NotRequired[str | None]


class ShareScore(TypedDict):
    """A score from 0 to 1 of all cases together, with its 95 % interval."""

    value: MaybeShare
    ci95: ShareInterval | None
    method: NotRequired[str | None]


class ClassSummary(TypedDict):
    """All scores of a classifier; recall and precision by class, support: cases by
    class, confusion: `[truth][answer]`.
    """

    macro_f1: Score
    balanced_accuracy: Score
    accuracy: Score
    mcc: Score
    auc: Score
    ece: Score
    brier: Score
    log_loss: Score
    recall: dict[str, Score]
    precision: dict[str, Score]
    support: dict[str, Count]
    confusion: list[list[Count]]


class ScoreDifference(Score):
    """Of two models, and the probability that it is not above zero; files of 0.1.0 do
    not say that.
    """

    p_false_claim: NotRequired[MaybeNumber]


class ClassDifference(TypedDict):
    """One model minus another one on the same cases."""

    macro_f1: ScoreDifference
    auc: ScoreDifference


class ClassValues(TypedDict):
    """The compared scores without intervals."""

    macro_f1: MaybeNumber
    auc: MaybeNumber


class ClassRow(TypedDict):
    """A classifier beside the others; `difference` is absent for this model itself."""

    name: str
    summary: ClassSummary
    difference: NotRequired[ClassDifference]


ClassCase = TypedDict(
    "ClassCase",
    {
        "class": str | None,
        "answer": str,
        "probabilities": dict[str, Share],
        "fold": str | None,
        "flags": list[str],
    },
)
"""Class and answer of one case; by functional syntax, since `class` is a keyword."""


class ClassificationSection(TypedDict):
    """One classifier beside what it must beat.

    resubstitution: its scores on the cases that it was fitted on, and gap: those minus
    the scores here; None if not measured. classifier: facts by fold.
    """

    convention: dict[str, str]
    classes: list[str]
    cases: dict[str, ClassCase]
    summary: ClassSummary
    rows: list[ClassRow]
    resubstitution: ClassValues | None
    gap: ClassValues | None
    classifier: dict[str, object]
    warnings: list[str]


CheckedClasses = Annotated[ClassificationSection, AfterValidator(agreeing_classes)]
"""The section, whose parts agree with each other."""
