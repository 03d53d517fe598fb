"""What metrics.json holds, as types: its sections and the rows in them.

Which metrics a row has depends on the convention, so rows that are read by a metric's
name are mappings (`MetricRow`, `SummaryRow`, `VolumeMetrics`); everything with fixed
keys is a TypedDict. None, `null` in the file, is what cannot be known.
"""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, TypeAdapter
from typing_extensions import TypedDict

from trivox.evaluation.metrics.class_content import CheckedClasses
from trivox.evaluation.metrics.detection_content import CheckedDetection
from trivox.evaluation.metrics.numbers import (
    Count,
    Interval,
    MaybeNumber,
    Number,
    number_if_known,
    read_number,
)
from trivox.evaluation.metrics.trust_content import (
    CalibrationSection,
    MissedSection,
    VolumeIntervalSection,
)
from trivox.schema import DescribedAs

FORMAT_VERSION = 1
"""Of metrics.json; files of trivox 0.1.0 have none, and no `task`."""

COUNTED = "n_"
"""How the names of counts in a summary begin."""
NO_NUMBERS: Mapping[str, type] = {"empty": str, "lesions": list}
"""What stands beside the numbers of a row."""


def _metric_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row as it is read from a file: numbers, and what has another name than they."""
    return {name: _metric(name, value) for name, value in row.items()}


def _metric(name: str, value: object) -> object:
    known = NO_NUMBERS.get(name)
    try:
        if known is None:
            return None if number_if_known(value) is None else value
        if not isinstance(value, known):
            raise ValueError(f"is no {known.__name__}")
    except ValueError as error:
        raise ValueError(f"{name[:60]} {error}") from None
    return value


def _summary_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row as it is read from a file: statistics and counts."""
    return {name: _statistic_or_count(name, value) for name, value in row.items()}


def _statistic_or_count(name: str, value: object) -> object:
    is_count = name.startswith(COUNTED)
    return read_number(value) if is_count else STATISTIC.validate_python(value)


VolumeMetrics = dict[str, float | None]
"""Metrics of one synthetic CT, by name."""

ConventionBlock = dict[str, object]
"""Name and parameters of a convention, and each of its rules in words."""


# -- numbers ---------------------------------------------------------------------------
class Statistic(TypedDict):
    """A metric over cases; std with n - 1, ci95 of the mean by `method`.

    Files of 0.1.0 have no `method` (it was the percentile bootstrap) and no interval of
    the median.
    """

    mean: MaybeNumber
    std: MaybeNumber
    median: MaybeNumber
    ci95: Interval | None
    method: NotRequired[str | None]
    median_ci95: NotRequired[Interval | None]
    n: Count


STATISTIC = TypeAdapter(Statistic)


class PairedDifference(TypedDict):
    """How much better a model is than another on the same cases; see `claims`."""

    mean: Number
    ci95: Interval | None
    method: str
    p_false_claim: MaybeNumber
    effect_size: MaybeNumber
    n: Count


# -- label maps ------------------------------------------------------------------------
class LesionRow(TypedDict, total=False):
    """One lesion of the reference; nsd and components as far as the convention has
    them, dice and hd95_mm under `brats-instance` only where it was found.
    """

    volume_mm3: Number
    dice: Number
    nsd: Number
    hd95_mm: MaybeNumber
    components: Count


class TargetMetrics(TypedDict, total=False):
    """Metrics of one label or region in one case: those of its convention.

    empty: which mask holds nothing, `both`, `prediction` or `reference`; absent if
    both hold something. lesions: one row a lesion of the reference.
    """

    dice: MaybeNumber
    iou: MaybeNumber
    sensitivity: MaybeNumber
    specificity: Number
    precision: MaybeNumber
    hd95_mm: MaybeNumber
    assd_mm: MaybeNumber
    nsd: MaybeNumber
    nsd_voxel: MaybeNumber
    instance_dice: MaybeNumber
    instance_nsd: MaybeNumber
    instance_hd95_mm: MaybeNumber
    lesions_found: Count
    lesions_missed: Count
    lesions_spurious: Count
    lesions_too_small: Count
    lesion_precision: MaybeNumber
    lesion_sensitivity: MaybeNumber
    rq: MaybeNumber
    pq: MaybeNumber
    whole_dice: Number
    whole_hd95_mm: Number
    volume_ml: Number
    reference_volume_ml: Number
    volume_error_ml: Number
    volume_error_percent: MaybeNumber
    empty: str
    lesions: list[LesionRow]


class RuleGain(TypedDict):
    """What postprocessing adds to the mean Dice of a target."""

    on_the_same_cases: MaybeNumber
    cross_fitted: MaybeNumber


class PostprocessingSection(TypedDict, total=False):
    """The rules chosen on the validation cases, a line about each trial, and what they
    gain.
    """

    largest_foreground: bool
    largest_of: list[Count]
    largest_of_regions: list[str]
    remove_small: dict[str, Number]
    replace_small: dict[str, Number]
    trials: list[str]
    gain: dict[str, RuleGain]
    convention: str


# -- several raters --------------------------------------------------------------------
def _with_dice(statistics: dict[str, Statistic]) -> dict[str, Statistic]:
    if "dice" not in statistics:
        raise ValueError("dice: is missing")
    return statistics


Statistics = Annotated[dict[str, Statistic], AfterValidator(_with_dice)]
"""By metric; every convention has Dice."""


class RaterRow(TypedDict):
    """A rater: others: the mean over the other raters of a case; model: the prediction
    against him; sensitivity, specificity: as STAPLE estimates them, of labels alone.
    """

    others: Statistics
    model: Statistics
    sensitivity: NotRequired[Statistic]
    specificity: NotRequired[Statistic]


class RatersTarget(TypedDict):
    """A target, or the mean over targets.

    among: the mean over all pairs of raters of a case; model: the mean of the prediction
    over all raters; majority, staple: the prediction against what they agree on;
    difference: by metric, model minus among, above zero where the model agrees better
    with the raters than they do with one another.
    """

    raters: dict[str, RaterRow]
    among: Statistics
    model: Statistics
    majority: Statistics
    staple: Statistics
    difference: dict[str, PairedDifference]


class RatersSection(TypedDict):
    """files: where the label maps of each rater are; cases: that all of them have."""

    files: dict[str, str]
    cases: Annotated[list[str], Field(min_length=1)]
    convention: dict[str, str]
    targets: Annotated[dict[str, RatersTarget], Field(min_length=1)]


def _agreeing_raters(section: RatersSection) -> RatersSection:
    """All targets are of the raters that are listed."""
    for name, target in section["targets"].items():
        if target["raters"].keys() != section["files"].keys():
            raise ValueError(f"targets: {name:.60}: raters: are not those of files")
    return section


CheckedRaters = Annotated[RatersSection, AfterValidator(_agreeing_raters)]
"""The section, whose parts agree with each other."""


# -- volumes ---------------------------------------------------------------------------
class Gain(TypedDict):
    """Network minus another method on the same cases; files of 0.1.0 say nothing of the
    method, of false claims and of the effect size.
    """

    difference: MaybeNumber
    ci95: Interval | None
    wilcoxon_p: MaybeNumber
    method: NotRequired[str]
    p_false_claim: NotRequired[MaybeNumber]
    effect_size: NotRequired[MaybeNumber]


class LadderRow(TypedDict):
    """One method; paired: what the network gains on it, by metric, empty for the
    network itself.
    """

    name: str
    summary: dict[str, Statistic]
    paired: dict[str, Gain]


class LadderSection(TypedDict):
    """The methods that had to be beaten, with one number of views."""

    views: Count
    rows: list[LadderRow]


# -- the file --------------------------------------------------------------------------
MetricRow = Annotated[
    Mapping[str, Any],
    AfterValidator(_metric_row),
    DescribedAs(TargetMetrics | VolumeMetrics),
]
"""Metrics of one target in one case, by name; see `TargetMetrics`, `VolumeMetrics`."""

SummaryRow = Annotated[
    Mapping[str, Any],
    AfterValidator(_summary_row),
    DescribedAs(dict[str, Statistic | Count]),
]
"""A `Statistic` for each metric; of labels also the counts n_empty, n_missed and
n_spurious.
"""


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
    format_version: NotRequired[Count]
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
    volume_intervals: NotRequired[VolumeIntervalSection]
    missed_voxels: NotRequired[MissedSection]
    missed_lesions: NotRequired[MissedSection]
    raters: NotRequired[CheckedRaters]
    classification: NotRequired[CheckedClasses]
    detection: NotRequired[CheckedDetection]


METRICS_FILE = TypeAdapter(MetricsFile)
"""Reads a metrics.json; raises pydantic's `ValidationError`."""
