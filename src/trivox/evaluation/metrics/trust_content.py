"""What metrics.json says of trust in a model: calibration, volumes, missed voxels and
lesions.
"""

from typing import Annotated, NotRequired

from pydantic import AfterValidator
from typing_extensions import TypedDict

from trivox.evaluation.metrics.agreement import agreeing_counts, agreeing_curve
from trivox.evaluation.metrics.numbers import (
    Count,
    Interval,
    MaybeNumber,
    MaybeShare,
    Number,
    Share,
    ShareInterval,
)


class CalibrationErrors(TypedDict):
    """All 0 at best; see `measure_calibration`."""

    ece: Number
    adaptive_ece: Number
    classwise_ece: Number
    mce: Number
    brier: Number
    nll: Number


class ReliabilityCurve(TypedDict):
    """One entry for each bin of confidence; None where it is empty."""

    count: list[Count]
    confidence: list[MaybeNumber]
    accuracy: list[MaybeNumber]


class RiskCoverage(TypedDict):
    """Mean risk over all coverages in three orders; see `risk_coverage`."""

    aurc: Number
    best: Number
    random: Number


class DoubtSection(TypedDict):
    """How well the entropy of a case ranks its Dice; the cases alone if there is no
    score.
    """

    cases: Count
    spearman_with_dice: NotRequired[MaybeNumber]
    aurc: NotRequired[Number]
    best: NotRequired[Number]
    random: NotRequired[Number]


class CalibrationMeasures(TypedDict):
    """Calibration before and after a temperature, None where it cannot be measured, and
    how well entropy points at wrong voxels.
    """

    before: CalibrationErrors | None
    after: CalibrationErrors | None
    error_ranking_auroc: MaybeNumber
    reliability: dict[str, Annotated[ReliabilityCurve, AfterValidator(agreeing_curve)]]


class AbstentionRule(TypedDict):
    """What is shown of the rule of the bundle, see `Abstention` there."""

    threshold: Number
    poor_dice: Number
    cases: Count
    poor: Count
    flagged: Count
    flagged_poor: Count


CheckedRule = Annotated[
    AbstentionRule,
    AfterValidator(agreeing_counts("flagged_poor", "poor", "cases")),
    AfterValidator(agreeing_counts("flagged_poor", "flagged", "cases")),
]


class FlagSection(TypedDict):
    """Which score flags cases, `entropy` or `agreement` of the votes, by the areas under
    their risk-coverage curves (aurc) over so many cases; rule: of agreement.
    """

    chosen: str
    aurc: dict[str, Number]
    best: Number
    random: Number
    cases: Count
    votes: Count
    rule: CheckedRule


class CalibrationSection(CalibrationMeasures):
    """The temperature, what it does, and how well doubt points at poor cases.

    abstention: the rule by which entropy flags cases, None if there is none; flag:
    whether it or the agreement of votes does, where validation had several.
    """

    temperature: Number
    cross_fitted: list[Number]
    cases: Count
    voxels: Count
    doubt: DoubtSection
    abstention: CheckedRule | None
    flag: NotRequired[FlagSection]
    convention: dict[str, str]


# -- volumes of labels ---------------------------------------------------------------
class VolumeIntervalRow(TypedDict):
    """By what factors the true volume of a target is below and above the predicted one
    at most; covered: how many of the tested cases were, ci95: of that share.
    """

    low_factor: MaybeNumber
    high_factor: MaybeNumber
    cases: Count
    covered: Count
    tested: Count
    coverage: MaybeNumber
    ci95: Interval | None
    method: str | None


CheckedInterval = Annotated[
    VolumeIntervalRow, AfterValidator(agreeing_counts("covered", "tested"))
]


class VolumeIntervalSection(TypedDict):
    """Intervals of volumes as the bundle holds them, and how they did on cases that they
    were not learnt on, by target.
    """

    level: Number
    offset_ml: Number
    convention: dict[str, str]
    targets: dict[str, CheckedInterval]


class MissedRow(TypedDict):
    """The threshold for missing at most a share of the voxels of a target, or of its
    lesions, from so many cases that have it; missed: what was missed in the mean of the
    tested cases.
    """

    max_missed: Share
    threshold: MaybeShare
    cases: Count
    tested: Count
    missed: MaybeShare
    ci95: ShareInterval | None
    method: str | None


class MissedSection(TypedDict):
    """Thresholds below which few voxels or lesions are missed, by target; the bundle
    holds all.
    """

    convention: dict[str, str]
    targets: dict[
        str,
        list[Annotated[MissedRow, AfterValidator(agreeing_counts("tested", "cases"))]],
    ]
