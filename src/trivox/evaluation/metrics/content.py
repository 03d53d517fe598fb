"""What metrics.json holds, as types: its sections and the rows in them.

Which metrics a row has depends on the convention, so rows that are read by a metric's
name are mappings (`MetricRow`, `SummaryRow`, `VolumeMetrics`); everything with fixed
keys is a TypedDict. None, `null` in the file, is what cannot be known.
"""

from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

FORMAT_VERSION = 1
"""Of metrics.json; files of trivox 0.1.0 have none, and no `task`."""

MetricRow = Mapping[str, Any]
"""Metrics of one target in one case, by name; see `TargetMetrics`, `VolumeMetrics`."""

SummaryRow = Mapping[str, Any]
"""A `Statistic` for each metric; of labels also the counts n_empty, n_missed and
n_spurious.
"""

VolumeMetrics = dict[str, float | None]
"""Metrics of one synthetic CT, by name."""

ConventionBlock = dict[str, object]
"""Name and parameters of a convention, and each of its rules in words."""


# -- numbers ---------------------------------------------------------------------------
class Statistic(TypedDict):
    """A metric over cases; std with n - 1, ci95 of the mean."""

    mean: float | None
    std: float | None
    median: float | None
    ci95: list[float] | None
    n: int


class PairedDifference(TypedDict):
    """How much better a model is than another on the same cases."""

    mean: float
    ci95: list[float]
    p_value: float
    n: int


class Score(TypedDict):
    """A score of all cases together, with its 95 % interval."""

    value: float | None
    ci95: list[float] | None


# -- label maps ------------------------------------------------------------------------
class LesionRow(TypedDict, total=False):
    """One lesion of the reference; nsd and components as far as the convention has
    them, dice and hd95_mm under `brats-instance` only where it was found.
    """

    volume_mm3: float
    dice: float
    nsd: float
    hd95_mm: float | None
    components: int


class TargetMetrics(TypedDict, total=False):
    """Metrics of one label or region in one case: those of its convention.

    empty: which mask holds nothing, `both`, `prediction` or `reference`; absent if
    both hold something. lesions: one row a lesion of the reference.
    """

    dice: float | None
    iou: float | None
    sensitivity: float | None
    specificity: float
    precision: float | None
    hd95_mm: float | None
    assd_mm: float | None
    nsd: float | None
    nsd_voxel: float | None
    instance_dice: float | None
    instance_nsd: float | None
    instance_hd95_mm: float | None
    lesions_found: int
    lesions_missed: int
    lesions_spurious: int
    lesions_too_small: int
    lesion_precision: float | None
    lesion_sensitivity: float | None
    rq: float | None
    pq: float | None
    whole_dice: float
    whole_hd95_mm: float
    volume_ml: float
    reference_volume_ml: float
    volume_error_ml: float
    volume_error_percent: float | None
    empty: str
    lesions: list[LesionRow]


class RuleGain(TypedDict):
    """What postprocessing adds to the mean Dice of a target."""

    on_the_same_cases: float | None
    cross_fitted: float | None


class PostprocessingSection(TypedDict, total=False):
    """The rules chosen on the validation cases, a line about each trial, and what they
    gain.
    """

    largest_foreground: bool
    largest_of: list[int]
    largest_of_regions: list[str]
    remove_small: dict[str, float]
    replace_small: dict[str, float]
    trials: list[str]
    gain: dict[str, RuleGain]
    convention: str


# -- calibration -----------------------------------------------------------------------
class CalibrationErrors(TypedDict):
    """All 0 at best; see `measure_calibration`."""

    ece: float
    adaptive_ece: float
    classwise_ece: float
    mce: float
    brier: float
    nll: float


class ReliabilityCurve(TypedDict):
    """One entry for each bin of confidence; None where it is empty."""

    count: list[int]
    confidence: list[float | None]
    accuracy: list[float | None]


class RiskCoverage(TypedDict):
    """Mean risk over all coverages in three orders; see `risk_coverage`."""

    aurc: float
    best: float
    random: float


class DoubtSection(TypedDict):
    """How well the entropy of a case ranks its Dice; the cases alone if there is no
    score.
    """

    cases: int
    spearman_with_dice: NotRequired[float | None]
    aurc: NotRequired[float]
    best: NotRequired[float]
    random: NotRequired[float]


class CalibrationMeasures(TypedDict):
    """Calibration before and after a temperature, None where it cannot be measured, and
    how well entropy points at wrong voxels.
    """

    before: CalibrationErrors | None
    after: CalibrationErrors | None
    error_ranking_auroc: float | None
    reliability: dict[str, ReliabilityCurve]


class CalibrationSection(CalibrationMeasures):
    """The temperature, what it does, and how well doubt points at poor cases.

    abstention: the rule by which cases are flagged, None if there is none.
    """

    temperature: float
    cross_fitted: list[float]
    cases: int
    voxels: int
    doubt: DoubtSection
    abstention: dict[str, object] | None
    convention: dict[str, str]


# -- classes of cases ------------------------------------------------------------------
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
    support: dict[str, int]
    confusion: list[list[int]]


class ClassDifference(TypedDict):
    """One model minus another one on the same cases."""

    macro_f1: Score
    auc: Score


class ClassValues(TypedDict):
    """The compared scores without intervals."""

    macro_f1: float | None
    auc: float | None


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
        "probabilities": dict[str, float],
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


# -- volumes ---------------------------------------------------------------------------
class Gain(TypedDict):
    """Network minus another method on the same cases."""

    difference: float | None
    ci95: list[float] | None
    wilcoxon_p: float | None


class LadderRow(TypedDict):
    """One method; paired: what the network gains on it, by metric, empty for the
    network itself.
    """

    name: str
    summary: dict[str, Statistic]
    paired: dict[str, Gain]


class LadderSection(TypedDict):
    """The methods that had to be beaten, with one number of views."""

    views: int
    rows: list[LadderRow]


# -- the file --------------------------------------------------------------------------
class MeasuredFile(TypedDict):
    """A file that was measured, and what it was, see `trivox.sources.Source`."""

    file: str
    size: int
    modified_ns: int
    changed_ns: int
    sha256: str


class MetricsFile(TypedDict):
    """metrics.json: cases (case -> target -> metrics), statistics over them (target ->
    metric -> statistic), and the sections that the task has.

    sources: prediction and reference of each case; 0.1.0 did not write them down.
    """

    task: NotRequired[str]
    format_version: NotRequired[int]
    notice: NotRequired[str]
    convention: ConventionBlock
    cases: Mapping[str, Mapping[str, MetricRow]]
    summary: Mapping[str, SummaryRow]
    warnings: NotRequired[list[str]]
    sources: NotRequired[Mapping[str, Mapping[str, MeasuredFile]]]
    ladder: NotRequired[LadderSection]
    by_views: NotRequired[list[LadderSection]]
    postprocessing: NotRequired[PostprocessingSection]
    calibration: NotRequired[CalibrationSection]
    classification: NotRequired[ClassificationSection]
