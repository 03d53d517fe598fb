"""A folder of predictions against a folder of references: the content of metrics.json."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from trivox.datasets.labels import LabelScheme
from trivox.errors import (
    BundleError,
    DataError,
    FormatError,
    GeometryError,
    LabelError,
    few,
)
from trivox.evaluation.conventions.choice import (
    STANDARD,
    Convention,
    choose_convention,
)
from trivox.evaluation.folders.class_answers import is_class_table, measure_answers
from trivox.evaluation.folders.detections import detection_section
from trivox.evaluation.folders.grids import on_shared_grids
from trivox.evaluation.folders.measured import (
    against_themselves,
    finished,
    measured_files,
)
from trivox.evaluation.folders.pairs import (
    LabelPair,
    label_maps,
    labels_found,
    labels_of,
    not_measured,
    pair_up,
    readable_pairs,
    references_of,
    require_same_meaning,
    unusable_files,
)
from trivox.evaluation.metrics.content import (
    FORMAT_VERSION,
    METRICS_FILE,
    ConventionBlock,
    MeasuredFile,
    MetricRow,
    MetricsFile,
    Statistic,
    SummaryRow,
    TargetMetrics,
)
from trivox.evaluation.metrics.statistics import summarise
from trivox.files import read_json
from trivox.schema import beyond_64_bits, first_complaint
from trivox.volumes.formats import label_grid, read_labels
from trivox.volumes.segmentations.parts import PART
from trivox.volumes.segmentations.segments import READ_AS, Grid
from trivox.volumes.volume import spacing_of

VOLUMES = (
    "volume_ml",
    "reference_volume_ml",
    "volume_error_ml",
    "volume_error_percent",
)
NO_STATISTICS = ("empty", "lesions")
LESION_COUNTS = "lesions_"
EMPTY_COUNTS = {"both": "n_empty", "prediction": "n_missed", "reference": "n_spurious"}
GIVE = "give a run or what 'trivox evaluate' wrote"
UNMEASURED = "label maps are not measured: the references hold none"


class Measured(NamedTuple):
    """The metrics of a case by target, and what the readers of its files had to say."""

    metrics: dict[str, TargetMetrics]
    remarks: list[str]


CaseMetrics = Mapping[str, Mapping[str, MetricRow]]
"""Case -> target -> metrics."""


def evaluate_folders(
    predictions: Path,
    references: Path,
    *,
    task: str,
    labels: LabelScheme | None = None,
    convention: str | Convention = STANDARD.name,
    whole: str | None = None,
    classes: Path | None = None,
    workers: int = 2,
) -> MetricsFile:
    """Compare label maps with the same name, and the classes of cases; returns what
    metrics.json holds.

    predictions: a folder of label maps (or one file), of `classes.csv`, or of both.
    references: label maps, or a dataset in any layout, or a table of classes. task: what
    the predictions answer, for metrics.json. labels: what the values mean; None: as the
    dataset says, else each value found is a label named `label_<value>`. convention:
    how a case is measured, by name (`CONVENTIONS`) or with its parameters. whole: also
    measure all labels together, under this name. classes: table of the classes, in
    place of the dataset's. Files without counterpart are listed under `warnings`.
    Raises `DataError` if no case is in both, `GeometryError` naming every case whose
    two label maps lie on different grids, `LabelError` for undeclared values.
    """
    rules = choose_convention(convention) if isinstance(convention, str) else convention
    maps = label_maps(predictions)
    table = references if is_class_table(references) else classes
    expected = references_of(references, maps)
    section, warnings = measure_answers(
        predictions, table=table, dataset=expected.dataset
    )
    if section is not None and not (maps and expected.files):
        return {
            "task": task,
            "format_version": FORMAT_VERSION,
            "convention": {},
            "cases": {},
            "summary": {},
            "warnings": [UNMEASURED] if maps else [],
            "classification": section,
        }
    maps, begun = finished(predictions, maps)
    paired, unpaired = pair_up(predictions, references, maps, expected)
    pairs, unread = readable_pairs(paired)
    placed, unplaced = on_shared_grids(pairs)
    unread += unplaced
    pairs = [pair for pair, _ in placed]
    scheme = labels or expected.labels or labels_found(pairs, predictions, references)
    if labels is None and expected.labels is not None:
        require_same_meaning(predictions, expected.labels)
    warnings += [*begun, *unpaired]
    files = {pair.case: (pair.prediction, pair.reference) for pair in pairs}
    warnings += against_themselves(files)
    warnings += [*unusable_files(predictions), *unusable_files(references)]
    warnings += _unmet_terms(pairs, rules, scheme, references)

    def meaning(pair: LabelPair) -> LabelScheme:
        return labels or labels_of(pair, scheme)

    def measure(pair: LabelPair, grid: Grid) -> Measured:
        return _evaluate_pair(pair, grid, meaning(pair), rules, whole)

    cases, sources, spoiled = _measured(placed, measure, workers)
    unread += spoiled
    if not cases:
        raise DataError(f"{predictions}: no case can be measured: {unread[0]}")
    detection, unseen = detection_section(predictions, placed, meaning)
    warnings += [*unread, *unseen]
    metrics = collect_metrics(
        cases, task=task, convention=rules, whole=whole, warnings=warnings
    )
    metrics["sources"] = sources
    if section is not None:
        metrics["classification"] = section
    if detection is not None:
        metrics["detection"] = detection
    return metrics


def _measured(
    placed: Sequence[tuple[LabelPair, Grid]],
    measure: Callable[[LabelPair, Grid], Measured],
    workers: int,
) -> tuple[
    dict[str, dict[str, TargetMetrics]], dict[str, dict[str, MeasuredFile]], list[str]
]:
    """The metrics and the files of each case, and warnings: what readers had to say, and
    which cases have voxels that cannot be read, or segments that have no label.
    """
    cases = {}
    sources = {}
    warnings = []

    def files_and_metrics(
        pair: LabelPair, grid: Grid
    ) -> tuple[dict[str, MeasuredFile], Measured]:
        files = measured_files(pair.prediction, pair.reference)  # before they are read
        return files, measure(pair, grid)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        futures = [pool.submit(files_and_metrics, *each) for each in placed]
        for (pair, _), future in zip(placed, futures, strict=True):
            try:
                sources[pair.case], measured = future.result()
            except FormatError as error:
                warnings.append(not_measured(pair.case, str(error)))
            except (GeometryError, LabelError) as error:
                if not pair.segmentations:
                    raise
                warnings.append(not_measured(pair.case, str(error)))
            else:
                cases[pair.case] = measured.metrics
                warnings += measured.remarks
    return cases, sources, warnings


def _evaluate_pair(
    pair: LabelPair,
    grid: Grid,
    labels: LabelScheme,
    rules: Convention,
    whole: str | None,
) -> Measured:
    predicted = read_labels(pair.prediction, onto=grid, meaning=labels)
    expected = read_labels(pair.reference, onto=grid, meaning=labels)
    remarks = [
        f"{pair.case}: {remark}"
        for remark in (*predicted.remarks, *expected.remarks)
        if remark == PART or (pair.segmentations and not remark.startswith(READ_AS))
    ]
    metrics = rules.evaluate(
        labels.encode(predicted.array[0], where=f"{pair.case}: prediction"),
        labels.encode(expected.array[0], where=f"{pair.case}: reference"),
        spacing=expected.steps,
        targets=labels.targets if whole is None else with_whole(labels, whole),
    )
    return Measured(metrics, remarks)


def with_whole(labels: LabelScheme, name: str) -> dict[str, tuple[int, ...]]:
    """The targets of `labels`, and all foreground together under `name`; raises
    `LabelError` if a target has that name.
    """
    if name in labels.targets:
        raise LabelError(
            f"'{name}' is a label or region already; choose another name for all of "
            "them together"
        )
    return {**labels.targets, name: tuple(range(1, len(labels.values)))}


def collect_metrics(
    cases: CaseMetrics,
    *,
    task: str,
    convention: Convention = STANDARD,
    whole: str | None = None,
    warnings: Sequence[str] = (),
) -> MetricsFile:
    """The content of metrics.json from the metrics of each case; for results that never
    were files.

    task: its name, for the file. whole: the target that is all labels together
    (`with_whole`); it does not count in the mean over labels.
    """
    description = convention.describe()
    apart: tuple[str, ...] = ()
    if whole is not None:
        apart = (whole,)
        description["whole"] = (
            f"'{whole}' is all labels together; it does not count in the mean of labels"
        )
    return {
        "task": task,
        "format_version": FORMAT_VERSION,
        "convention": description,
        "cases": cases,
        "summary": summarise_cases(cases, apart=apart),
        "warnings": list(warnings),
    }


# -- the file --------------------------------------------------------------------------
def read_metrics(file: Path) -> MetricsFile:
    """The content of a metrics.json; raises `BundleError` for anything else.

    Files of trivox 0.1.0 have no `task` and no `format_version`.
    """
    content = read_json(file)
    known = {"summary", "cases", "convention"}
    if not isinstance(content, dict) or not known <= content.keys():
        raise BundleError(f"{file}: is no metrics.json; {GIVE}")
    version = content.get("format_version", FORMAT_VERSION)
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{file}: metrics format {version!r:.40} is not {FORMAT_VERSION}; measure "
            "again with 'trivox evaluate'"
        )
    place = beyond_64_bits(content)
    if place is not None:
        raise BundleError(f"{file}: {place} is a number beyond 64 bits; {GIVE}")
    try:
        return METRICS_FILE.validate_python(content)
    except ValidationError as invalid:
        complaint = first_complaint(invalid)
        raise BundleError(
            f"{file}: is no metrics.json, {complaint}; {GIVE}"
        ) from invalid


# -- statistics over cases -------------------------------------------------------------
def summarise_cases(
    cases: CaseMetrics, *, apart: Sequence[str] = ()
) -> dict[str, SummaryRow]:
    """Statistics over cases for each label, and for `mean`: the average of a case's
    labels (nulls left out).

    apart: targets that have statistics of their own but do not count in `mean`, since
    other ones hold the same voxels. `n_empty`, `n_missed`, `n_spurious` count the cases
    where both masks, the prediction or the reference are empty.
    """
    targets = names_in(cases.values())
    metrics = _metrics_in(cases)
    summary: dict[str, SummaryRow] = {}
    for target in targets:
        rows = [case[target] for case in cases.values() if target in case]
        summary[target] = _summary_row(rows, metrics)
    means: dict[str, Statistic] = {}
    for metric in metrics:
        if metric not in VOLUMES and not metric.startswith(LESION_COUNTS):
            values = [mean_of_case(case, metric, apart) for case in cases.values()]
            means[metric] = summarise(values, metric)
    summary[mean_row(targets)] = means
    return summary


def mean_row(labels: Iterable[str]) -> str:
    """Name of the summary's row over all labels: `mean`, unless a label is called so."""
    return "mean_of_labels" if "mean" in labels else "mean"


def whole_in(convention: ConventionBlock) -> str | None:
    """Name of the target that is all labels together, by the words of
    `collect_metrics`; None: there is none.
    """
    said = str(convention.get("whole", ""))
    return said.split("'")[1] if said.startswith("'") else None


def names_in(mappings: Iterable[Mapping[str, object]]) -> list[str]:
    """All keys, each once, in the order of their first appearance."""
    names: dict[str, None] = {}
    for mapping in mappings:
        names.update(dict.fromkeys(mapping))
    return list(names)


def _metrics_in(cases: CaseMetrics) -> list[str]:
    """Names of all metrics that have statistics, in the order of their first
    appearance.
    """
    rows: list[MetricRow] = []
    for case in cases.values():
        rows += case.values()
    return [name for name in names_in(rows) if name not in NO_STATISTICS]


def _summary_row(rows: Sequence[MetricRow], metrics: Sequence[str]) -> SummaryRow:
    """Statistics of one target, and how often a mask was empty."""
    summary: dict[str, Statistic | int] = {}
    for metric in metrics:
        summary[metric] = summarise([row.get(metric) for row in rows], metric)
    for state, count in EMPTY_COUNTS.items():
        summary[count] = sum(row.get("empty") == state for row in rows)
    return summary


def mean_of_case(
    case: Mapping[str, MetricRow], metric: str, apart: Sequence[str] = ()
) -> float | None:
    """Mean of a metric over the labels of a case, nulls and labels `apart` left out."""
    values = [row.get(metric) for name, row in case.items() if name not in apart]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _unmet_terms(
    pairs: Sequence[LabelPair], rules: Convention, scheme: LabelScheme, references: Path
) -> list[str]:
    """A warning for each thing that the convention takes for granted and that is not so
    here.
    """
    warnings = []
    if rules.name != STANDARD.name and not scheme.regions:
        warnings.append(
            f"{references}: declares no regions, so each label is measured by itself; "
            "give the dataset folder to measure the regions of the challenge"
        )
    if rules.needs_1_mm:
        others = [pair.case for pair in pairs if not _has_1_mm(pair.reference)]
        if others:
            warnings.append(
                f"{rules.name} counts distances of whole regions in voxels, which are "
                f"not 1 mm wide in {few(others)}"
            )
    return warnings


def _has_1_mm(file: Path) -> bool:
    spacing = spacing_of(label_grid(file).affine)
    return all(abs(mm - 1) <= 1e-3 for mm in spacing)
