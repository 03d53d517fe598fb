"""A folder of predictions against a folder of references: the content of metrics.json."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, GeometryError
from trivox.evaluation.cases import DEFAULT_TOLERANCE_MM, IfMissed, Metrics, Tolerance, convention, evaluate_case
from trivox.evaluation.statistics import summarise
from trivox.inference.kinds import EXTRAS
from trivox.volumes import describe_mismatch, read_header, read_labels

AVERAGED = ("dice", "iou", "sensitivity", "precision", "hd95_mm", "assd_mm", "nsd", "nsd_voxel")
VOLUMES = ("volume_ml", "reference_volume_ml", "volume_error_ml", "volume_error_percent")
EMPTY_COUNTS = {"both": "n_empty", "prediction": "n_missed", "reference": "n_spurious"}

CaseMetrics = Mapping[str, Mapping[str, Metrics]]


class _Pair(NamedTuple):
    case: str
    prediction: Path
    reference: Path


def evaluate_folders(
    predictions: Path,
    references: Path,
    *,
    labels: LabelScheme | None = None,
    tolerance_mm: Tolerance = DEFAULT_TOLERANCE_MM,
    hd95_if_missed: IfMissed = "null",
    workers: int = 2,
) -> dict[str, Any]:
    """Compare label maps with the same name; returns what metrics.json holds.

    predictions: a folder of label maps (or one file). references: the same, or a dataset in any layout. labels: what
    the values mean; None: as the dataset says, else each value found is a label named `label_<value>`.
    Files without counterpart are listed under `warnings`. Raises `DataError` if no case is in both, `GeometryError`
    naming every case whose two label maps lie on different grids, `LabelError` for undeclared values.
    """
    pairs, declared, warnings = _pair(predictions, references)
    _require_same_grids(pairs)
    scheme = labels or declared or _found_labels(pairs, references)

    def one(pair: _Pair) -> dict[str, Metrics]:
        predicted, expected = read_labels(pair.prediction), read_labels(pair.reference)
        return evaluate_case(
            scheme.encode(predicted.array[0], where=f"{pair.case}: prediction"),
            scheme.encode(expected.array[0], where=f"{pair.case}: reference"),
            spacing=expected.spacing,
            targets=scheme.targets,
            tolerance_mm=tolerance_mm,
            hd95_if_missed=hd95_if_missed,
        )

    with ThreadPoolExecutor(max(1, workers)) as pool:
        cases = dict(zip((pair.case for pair in pairs), pool.map(one, pairs), strict=True))
    return collect_metrics(cases, tolerance_mm=tolerance_mm, hd95_if_missed=hd95_if_missed, warnings=warnings)


def collect_metrics(
    cases: CaseMetrics,
    *,
    tolerance_mm: Tolerance = DEFAULT_TOLERANCE_MM,
    hd95_if_missed: IfMissed = "null",
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of metrics.json from the metrics of each case; for results that never were files."""
    return {
        "convention": convention(tolerance_mm=tolerance_mm, hd95_if_missed=hd95_if_missed),
        "cases": cases,
        "summary": summarise_cases(cases),
        "warnings": list(warnings),
    }


def summarise_cases(cases: CaseMetrics) -> dict[str, dict[str, Any]]:
    """Statistics over cases for each label, and for `mean`: the average of a case's labels (nulls left out).

    `n_empty`, `n_missed`, `n_spurious` count the cases where both masks, the prediction or the reference are empty.
    """
    names = list(dict.fromkeys(name for case in cases.values() for name in case))
    summary: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = [case[name] for case in cases.values() if name in case]
        statistics = {metric: summarise(_column(rows, metric)) for metric in (*AVERAGED, *VOLUMES)}
        counts = {key: sum(row.get("empty") == state for row in rows) for state, key in EMPTY_COUNTS.items()}
        summary[name] = {**statistics, **counts}
    means = {metric: [_mean(_column(case.values(), metric)) for case in cases.values()] for metric in AVERAGED}
    summary[mean_row(names)] = {metric: summarise(values) for metric, values in means.items()}
    return summary


def mean_row(labels: Iterable[str]) -> str:
    """Name of the summary's row over all labels: `mean`, unless a label is called so."""
    return "mean_of_labels" if "mean" in labels else "mean"


def _column(rows: Iterable[Metrics], metric: str) -> list[float | None]:
    values = (row.get(metric) for row in rows)
    return [None if isinstance(value, str) else value for value in values]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _pair(predictions: Path, references: Path) -> tuple[list[_Pair], LabelScheme | None, list[str]]:
    predicted = _label_maps(predictions)
    if not predicted:
        raise DataError(f"{predictions}: no label maps found; give the folder that 'trivox predict' wrote")
    expected, declared, complete = _references(references, predicted)
    if predictions.is_file() and references.is_file() and len(expected) == 1:
        expected = dict(zip(predicted, expected.values(), strict=True))
    common = sorted(set(predicted) & set(expected))
    if not common:
        raise DataError(
            f"{predictions} and {references}: no case name is in both ({_few(predicted)} and {_few(expected)}); "
            "give prediction and reference of a case the same file name"
        )
    warnings = [f"prediction without reference, not measured: {_few(missing)}"
                for missing in [sorted(set(predicted) - set(expected))] if missing]  # fmt: skip
    unpredicted = sorted(set(expected) - set(predicted))
    if unpredicted and complete:
        warnings.append(f"reference without prediction, not measured: {_few(unpredicted)}")
    return [_Pair(case, predicted[case], expected[case]) for case in common], declared, warnings


def _label_maps(path: Path) -> dict[str, Path]:
    """Files that can be label maps, by case name: those in a folder, or the file itself."""
    from trivox.datasets.listing import image_stem, is_image_file, list_images

    if not path.exists():
        raise DataError(f"{path}: not found; check the path")
    if is_image_file(path):
        return {image_stem(path): path}
    found = {stem: file for stem, file in list_images(path).items() if file.is_file()} if path.is_dir() else {}
    beside = {f"{stem}_{extra}" for stem in found for extra in EXTRAS}
    return {stem: file for stem, file in found.items() if stem not in beside}


def _references(path: Path, predicted: Mapping[str, Path]) -> tuple[dict[str, Path], LabelScheme | None, bool]:
    """Reference of each case, the labels they declare, and whether each of them should have a prediction.

    Of a plain folder all should; of a dataset usually only some cases (a fold, the test set) were predicted.
    """
    from trivox.datasets.folders import LABEL_SUFFIX
    from trivox.datasets.layouts import load_dataset

    files = _label_maps(path)
    if files:
        named = {name if name in predicted else LABEL_SUFFIX.sub("", name): file for name, file in files.items()}
        return named, None, True
    dataset = load_dataset(path)
    return {case.name: case.label for case in dataset.cases if case.label}, dataset.labels, False


def _require_same_grids(pairs: Sequence[_Pair]) -> None:
    """Compare headers before any voxel is read."""
    mismatches = []
    for pair in pairs:
        predicted, expected = read_header(pair.prediction), read_header(pair.reference)
        mismatch = describe_mismatch(predicted.shape, predicted.affine, expected.shape, expected.affine)
        if mismatch:
            mismatches.append(f"{pair.case}: prediction and reference do not share a grid, {mismatch}")
    if mismatches:
        raise GeometryError(f"{_few(mismatches, separator='; ')}; predict on the grid of the references, or resample")


def _found_labels(pairs: Sequence[_Pair], where: Path) -> LabelScheme:
    from trivox.datasets.listing import discover_labels

    return discover_labels([file for pair in pairs for file in (pair.prediction, pair.reference)], where=where)


def _few(names: Iterable[str], *, separator: str = ", ", shown: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return separator.join(listed[:shown]) + more
