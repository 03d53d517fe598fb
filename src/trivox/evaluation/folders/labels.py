"""A folder of predictions against a folder of references: the content of metrics.json."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from trivox.datasets.dataset import Dataset
from trivox.datasets.labels import LabelScheme
from trivox.errors import BundleError, DataError, GeometryError, LabelError
from trivox.evaluation.conventions.cases import Metrics
from trivox.evaluation.conventions.choice import Convention, Trivox, choose_convention
from trivox.evaluation.folders.class_answers import is_class_table, measure_answers
from trivox.evaluation.metrics.statistics import summarise
from trivox.files import read_json
from trivox.inference.doubt.kinds import EXTRAS
from trivox.volumes.formats import read_header, read_labels
from trivox.volumes.geometry import describe_mismatch
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

CaseMetrics = Mapping[str, Mapping[str, Metrics]]


class _Pair(NamedTuple):
    case: str
    prediction: Path
    reference: Path
    labels: LabelScheme | None


class _References(NamedTuple):
    """Label map and own label scheme of each case, whether each of them should have a
    prediction, and their dataset.
    """

    files: dict[str, tuple[Path, LabelScheme | None]]
    labels: LabelScheme | None
    complete: bool
    dataset: Dataset | None


def evaluate_folders(
    predictions: Path,
    references: Path,
    *,
    labels: LabelScheme | None = None,
    convention: str | Convention = "trivox",
    whole: str | None = None,
    classes: Path | None = None,
    workers: int = 2,
) -> dict[str, Any]:
    """Compare label maps with the same name, and the classes of cases; returns what
    metrics.json holds.

    predictions: a folder of label maps (or one file), of `classes.csv`, or of both.
    references: label maps, or a dataset in any layout, or a table of classes. labels:
    what the values mean; None: as the dataset says, else each value found is a label
    named `label_<value>`. convention: how a case is measured, by name (`CONVENTIONS`)
    or with its parameters. whole: also measure all labels together, under this name.
    classes: table of the classes, in place of the dataset's. Files without counterpart
    are listed under `warnings`. Raises `DataError` if no case is in both,
    `GeometryError` naming every case whose two label maps lie on different grids,
    `LabelError` for undeclared values.
    """
    rules = choose_convention(convention) if isinstance(convention, str) else convention
    maps, table = (
        _label_maps(predictions),
        references if is_class_table(references) else classes,
    )
    found = _references(references, maps)
    section, warnings = measure_answers(predictions, table=table, dataset=found.dataset)
    answered = {} if section is None else {"classification": section}
    if answered and not (maps and found.files):
        unmeasured = (
            ["label maps are not measured: the references hold none"] if maps else []
        )
        return {
            "convention": {},
            "cases": {},
            "summary": {},
            "warnings": unmeasured,
            **answered,
        }
    pairs, unpaired = _pair(predictions, references, maps, found)
    _require_same_grids(pairs)
    scheme = labels or found.labels or _found_labels(pairs, references)
    warnings += [*unpaired, *_unmet_terms(pairs, rules, scheme, references)]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        results = pool.map(
            lambda pair: _evaluate_pair(
                pair, labels or _own_labels(pair, scheme), rules, whole
            ),
            pairs,
        )
        cases = dict(zip((pair.case for pair in pairs), results, strict=True))
    return {
        **collect_metrics(cases, convention=rules, whole=whole, warnings=warnings),
        **answered,
    }


def _evaluate_pair(
    pair: _Pair, labels: LabelScheme, rules: Convention, whole: str | None
) -> dict[str, Metrics]:
    predicted, expected = read_labels(pair.prediction), read_labels(pair.reference)
    return rules.evaluate(
        labels.encode(predicted.array[0], where=f"{pair.case}: prediction"),
        labels.encode(expected.array[0], where=f"{pair.case}: reference"),
        spacing=expected.spacing,
        targets=labels.targets if whole is None else with_whole(labels, whole),
    )


def with_whole(labels: LabelScheme, name: str) -> dict[str, tuple[int, ...]]:
    """The targets of `labels`, and all foreground together under `name`; raises
    `LabelError` if a target has that name.
    """
    if name in labels.targets:
        raise LabelError(
            f"'{name}' is a label or region already; choose another name for all of them together"
        )
    return {**labels.targets, name: tuple(range(1, len(labels.values)))}


def collect_metrics(
    cases: CaseMetrics,
    *,
    convention: Convention = Trivox(),
    whole: str | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of metrics.json from the metrics of each case; for results that never
    were files.

    whole: the target that is all labels together (`with_whole`); it does not count in
    the mean over labels.
    """
    about = (
        {}
        if whole is None
        else {
            "whole": f"'{whole}' is all labels together; it does not count in the mean of labels"
        }
    )
    return {
        "convention": {**convention.describe(), **about},
        "cases": cases,
        "summary": summarise_cases(cases, apart=() if whole is None else (whole,)),
        "warnings": list(warnings),
    }


def read_metrics(file: Path) -> dict[str, Any]:
    """The content of a metrics.json; raises `BundleError` for anything else."""
    content = read_json(file)
    parts = (
        [content.get(key) for key in ("summary", "cases", "convention")]
        if isinstance(content, dict)
        else [None]
    )
    cases = parts[1].values() if len(parts) == 3 and isinstance(parts[1], dict) else ()
    rows = [
        row
        for case in cases
        for row in (case.values() if isinstance(case, dict) else [None])
    ]
    if not all(isinstance(part, dict) for part in (*parts, *rows)):
        raise BundleError(
            f"{file}: is no metrics.json; give a run or what 'trivox evaluate' wrote"
        )
    return dict(content)


def summarise_cases(
    cases: CaseMetrics, *, apart: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Statistics over cases for each label, and for `mean`: the average of a case's
    labels (nulls left out).

    apart: targets that have statistics of their own but do not count in `mean`, since
    other ones hold the same voxels. `n_empty`, `n_missed`, `n_spurious` count the cases
    where both masks, the prediction or the reference are empty.
    """
    names = list(dict.fromkeys(name for case in cases.values() for name in case))
    measured = _measured(row for case in cases.values() for row in case.values())
    summary: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = [case[name] for case in cases.values() if name in case]
        statistics = {metric: summarise(_column(rows, metric)) for metric in measured}
        counts = {
            key: sum(row.get("empty") == state for row in rows)
            for state, key in EMPTY_COUNTS.items()
        }
        summary[name] = {**statistics, **counts}
    averaged = [
        metric
        for metric in measured
        if metric not in VOLUMES and not metric.startswith(LESION_COUNTS)
    ]
    counted = [
        [row for name, row in case.items() if name not in apart]
        for case in cases.values()
    ]
    means = {
        metric: [_mean(_column(rows, metric)) for rows in counted]
        for metric in averaged
    }
    summary[mean_row(names)] = {
        metric: summarise(values) for metric, values in means.items()
    }
    return summary


def mean_row(labels: Iterable[str]) -> str:
    """Name of the summary's row over all labels: `mean`, unless a label is called so."""
    return "mean_of_labels" if "mean" in labels else "mean"


def _column(rows: Iterable[Metrics], metric: str) -> list[float | None]:
    return [row.get(metric) for row in rows]


def _measured(rows: Iterable[Metrics]) -> list[str]:
    """Names of all metrics that have statistics, in the order of their first
    appearance.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in NO_STATISTICS]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _pair(
    predictions: Path,
    references: Path,
    predicted: Mapping[str, Path],
    found: _References,
) -> tuple[list[_Pair], list[str]]:
    if not predicted:
        raise DataError(
            f"{predictions}: no label maps found; give the folder that 'trivox predict' wrote"
        )
    expected = found.files
    if predictions.is_file() and references.is_file() and len(expected) == 1:
        expected = dict(zip(predicted, expected.values(), strict=True))
    common = sorted(set(predicted) & set(expected))
    if not common:
        raise DataError(
            f"{predictions} and {references}: no case name is in both ({_few(predicted)} and {_few(expected)}); "
            "give prediction and reference of a case the same file name"
        )
    warnings = [
        f"prediction without reference, not measured: {_few(missing)}"
        for missing in [sorted(set(predicted) - set(expected))]
        if missing
    ]
    unpredicted = sorted(set(expected) - set(predicted))
    if unpredicted and found.complete:
        warnings.append(
            f"reference without prediction, not measured: {_few(unpredicted)}"
        )
    return [_Pair(case, predicted[case], *expected[case]) for case in common], warnings


def _label_maps(path: Path) -> dict[str, Path]:
    """Files that can be label maps, by case name: those in a folder, or the file
    itself.
    """
    from trivox.datasets.listing import image_stem, is_image_file, list_images

    if not path.exists():
        raise DataError(f"{path}: not found; check the path")
    if is_image_file(path):
        return {image_stem(path): path}
    found = (
        {stem: file for stem, file in list_images(path).items() if file.is_file()}
        if path.is_dir()
        else {}
    )
    beside = {f"{stem}_{extra}" for stem in found for extra in EXTRAS}
    return {stem: file for stem, file in found.items() if stem not in beside}


def _references(path: Path, predicted: Mapping[str, Path]) -> _References:
    """What to compare with.

    Of a plain folder all should be predicted; of a dataset usually only some are (a
    fold...).
    """
    from trivox.datasets.layouts.choice import load_dataset
    from trivox.datasets.layouts.folders import LABEL_SUFFIX

    files = _label_maps(path)
    if files:
        names = {
            name if name in predicted else LABEL_SUFFIX.sub("", name): file
            for name, file in files.items()
        }
        return _References(
            {name: (file, None) for name, file in names.items()}, None, True, None
        )
    if is_class_table(path):
        return _References({}, None, False, None)
    dataset = load_dataset(path)
    found = {c.name: (c.label, c.labels) for c in dataset.cases if c.label}
    return _References(found, dataset.labels, False, dataset)


def _own_labels(pair: _Pair, scheme: LabelScheme) -> LabelScheme:
    """How the label maps of a case are written: its own way where that contradicts the
    dataset's.
    """
    own = pair.labels
    agrees = own is None or own.labels.items() <= scheme.labels.items()
    return scheme if own is None or agrees else own


def _require_same_grids(pairs: Sequence[_Pair]) -> None:
    """Compare headers before any voxel is read."""
    mismatches = []
    for pair in pairs:
        predicted, expected = read_header(pair.prediction), read_header(pair.reference)
        mismatch = describe_mismatch(
            predicted.shape, predicted.affine, expected.shape, expected.affine
        )
        if mismatch:
            mismatches.append(
                f"{pair.case}: prediction and reference do not share a grid, {mismatch}"
            )
    if mismatches:
        raise GeometryError(
            f"{_few(mismatches, separator='; ')}; predict on the grid of the references, or resample"
        )


def _unmet_terms(
    pairs: Sequence[_Pair], rules: Convention, scheme: LabelScheme, references: Path
) -> list[str]:
    """A warning for each thing that the convention takes for granted and that is not so
    here.
    """
    found = []
    if rules.name != "trivox" and not scheme.regions:
        found.append(
            f"{references}: declares no regions, so each label is measured by itself; give the dataset folder to measure "
            "the regions of the challenge"
        )
    other = [
        pair.case
        for pair in pairs
        if rules.needs_1_mm
        and any(
            abs(mm - 1) > 1e-3 for mm in spacing_of(read_header(pair.reference).affine)
        )
    ]
    if other:
        found.append(
            f"{rules.name} counts distances of whole regions in voxels, which are not 1 mm wide in {_few(other)}"
        )
    return found


def _found_labels(pairs: Sequence[_Pair], where: Path) -> LabelScheme:
    from trivox.datasets.listing import discover_labels

    return discover_labels(
        [file for pair in pairs for file in (pair.prediction, pair.reference)],
        where=where,
    )


def _few(names: Iterable[str], *, separator: str = ", ", shown: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return separator.join(listed[:shown]) + more
