"""A folder of predictions against a folder of references: the content of metrics.json."""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from trivox.datasets.labels import LabelScheme
from trivox.errors import BundleError, DataError, GeometryError
from trivox.evaluation.cases import Metrics
from trivox.evaluation.conventions import Convention, Trivox, choose_convention
from trivox.evaluation.statistics import summarise
from trivox.files import read_json
from trivox.inference.kinds import EXTRAS
from trivox.volumes import describe_mismatch, read_header, read_labels, spacing_of

VOLUMES = ("volume_ml", "reference_volume_ml", "volume_error_ml", "volume_error_percent")
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
    """Label map and own label scheme of each case, and whether each of them should have a prediction."""

    files: dict[str, tuple[Path, LabelScheme | None]]
    labels: LabelScheme | None
    complete: bool


def evaluate_folders(
    predictions: Path,
    references: Path,
    *,
    labels: LabelScheme | None = None,
    convention: str | Convention = "trivox",
    workers: int = 2,
) -> dict[str, Any]:
    """Compare label maps with the same name; returns what metrics.json holds.

    predictions: a folder of label maps (or one file). references: the same, or a dataset in any layout. labels: what
    the values mean; None: as the dataset says, else each value found is a label named `label_<value>`. convention: how
    a case is measured, by name (`CONVENTIONS`) or with its parameters.
    Files without counterpart are listed under `warnings`. Raises `DataError` if no case is in both, `GeometryError`
    naming every case whose two label maps lie on different grids, `LabelError` for undeclared values.
    """
    rules = choose_convention(convention) if isinstance(convention, str) else convention
    pairs, declared, warnings = _pair(predictions, references)
    _require_same_grids(pairs)
    scheme = labels or declared or _found_labels(pairs, references)
    if rules.name != "trivox" and not scheme.regions:
        warnings.append(
            f"{references}: declares no regions, so each label is measured by itself; give the dataset folder to measure "
            "the regions of the challenge"
        )

    def one(pair: _Pair) -> dict[str, Metrics]:
        predicted, expected = read_labels(pair.prediction), read_labels(pair.reference)
        own = scheme if labels else _own_labels(pair, scheme)
        return rules.evaluate(
            own.encode(predicted.array[0], where=f"{pair.case}: prediction"),
            own.encode(expected.array[0], where=f"{pair.case}: reference"),
            spacing=expected.spacing,
            targets=own.targets,
        )

    if rules.needs_1_mm:
        warnings += _other_spacings(pairs, rules.name)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        cases = dict(zip((pair.case for pair in pairs), pool.map(one, pairs), strict=True))
    return collect_metrics(cases, convention=rules, warnings=warnings)


def collect_metrics(
    cases: CaseMetrics,
    *,
    convention: Convention = Trivox(),  # noqa: B008 - frozen
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The content of metrics.json from the metrics of each case; for results that never were files."""
    return {
        "convention": convention.describe(),
        "cases": cases,
        "summary": summarise_cases(cases),
        "warnings": list(warnings),
    }


def read_metrics(file: Path) -> dict[str, Any]:
    """The content of a metrics.json; raises `BundleError` for anything else."""
    content = read_json(file)
    parts = [content.get(key) for key in ("summary", "cases", "convention")] if isinstance(content, dict) else [None]
    cases = parts[1].values() if len(parts) == 3 and isinstance(parts[1], dict) else ()
    rows = [row for case in cases for row in (case.values() if isinstance(case, dict) else [None])]
    if not all(isinstance(part, dict) for part in (*parts, *rows)):
        raise BundleError(f"{file}: is no metrics.json; give a run or what 'trivox evaluate' wrote")
    return dict(content)


def summarise_cases(cases: CaseMetrics) -> dict[str, dict[str, Any]]:
    """Statistics over cases for each label, and for `mean`: the average of a case's labels (nulls left out).

    `n_empty`, `n_missed`, `n_spurious` count the cases where both masks, the prediction or the reference are empty.
    """
    names = list(dict.fromkeys(name for case in cases.values() for name in case))
    measured = _measured(row for case in cases.values() for row in case.values())
    summary: dict[str, dict[str, Any]] = {}
    for name in names:
        rows = [case[name] for case in cases.values() if name in case]
        statistics = {metric: summarise(_column(rows, metric)) for metric in measured}
        counts = {key: sum(row.get("empty") == state for row in rows) for state, key in EMPTY_COUNTS.items()}
        summary[name] = {**statistics, **counts}
    averaged = [metric for metric in measured if metric not in VOLUMES and not metric.startswith(LESION_COUNTS)]
    means = {metric: [_mean(_column(case.values(), metric)) for case in cases.values()] for metric in averaged}
    summary[mean_row(names)] = {metric: summarise(values) for metric, values in means.items()}
    return summary


def mean_row(labels: Iterable[str]) -> str:
    """Name of the summary's row over all labels: `mean`, unless a label is called so."""
    return "mean_of_labels" if "mean" in labels else "mean"


def _column(rows: Iterable[Metrics], metric: str) -> list[float | None]:
    return [row.get(metric) for row in rows]


def _measured(rows: Iterable[Metrics]) -> list[str]:
    """Names of all metrics that have statistics, in the order of their first appearance."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name not in NO_STATISTICS]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _pair(predictions: Path, references: Path) -> tuple[list[_Pair], LabelScheme | None, list[str]]:
    predicted = _label_maps(predictions)
    if not predicted:
        raise DataError(f"{predictions}: no label maps found; give the folder that 'trivox predict' wrote")
    found = _references(references, predicted)
    expected = found.files
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
    if unpredicted and found.complete:
        warnings.append(f"reference without prediction, not measured: {_few(unpredicted)}")
    return [_Pair(case, predicted[case], *expected[case]) for case in common], found.labels, warnings


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


def _references(path: Path, predicted: Mapping[str, Path]) -> _References:
    """What to compare with. Of a plain folder all should be predicted; of a dataset usually only some are (a fold...)."""
    from trivox.datasets.folders import LABEL_SUFFIX
    from trivox.datasets.layouts import load_dataset

    files = _label_maps(path)
    if files:
        names = {name if name in predicted else LABEL_SUFFIX.sub("", name): file for name, file in files.items()}
        return _References({name: (file, None) for name, file in names.items()}, None, True)
    dataset = load_dataset(path)
    return _References({c.name: (c.label, c.labels) for c in dataset.cases if c.label}, dataset.labels, False)


def _own_labels(pair: _Pair, scheme: LabelScheme) -> LabelScheme:
    """How the label maps of a case are written: its own way where that contradicts the dataset's."""
    own = pair.labels
    agrees = own is None or own.labels.items() <= scheme.labels.items()
    return scheme if own is None or agrees else own


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


def _other_spacings(pairs: Sequence[_Pair], convention: str) -> list[str]:
    """A warning if cases do not have the spacing that the convention takes for granted."""
    other = [
        pair.case for pair in pairs if any(abs(mm - 1) > 1e-3 for mm in spacing_of(read_header(pair.reference).affine))
    ]
    if not other:
        return []
    return [f"{convention} counts distances of whole regions in voxels, which are not 1 mm wide in {_few(other)}"]


def _found_labels(pairs: Sequence[_Pair], where: Path) -> LabelScheme:
    from trivox.datasets.listing import discover_labels

    return discover_labels([file for pair in pairs for file in (pair.prediction, pair.reference)], where=where)


def _few(names: Iterable[str], *, separator: str = ", ", shown: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - shown} more" if len(listed) > shown else ""
    return separator.join(listed[:shown]) + more
