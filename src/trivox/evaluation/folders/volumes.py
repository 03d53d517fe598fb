"""A folder of synthetic CTs against the acquired ones: which files belong together, and
the content of metrics.json.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivox.datasets.dataset import Case
from trivox.datasets.exams import read_exam
from trivox.datasets.layouts import exams as exam_layout
from trivox.errors import DataError, FormatError, GeometryError, few
from trivox.evaluation.folders.measured import (
    against_themselves,
    finished,
    measured_files,
)
from trivox.evaluation.folders.pairs import (
    image_files,
    named_alike,
    not_measured,
    unusable_files,
)
from trivox.evaluation.folders.volume_summary import collect_volumes
from trivox.evaluation.metrics.content import MetricsFile, VolumeMetrics
from trivox.evaluation.metrics.volumes import WINDOW, HuWindow, measure_volume
from trivox.volumes.formats import read_header, read_volume

SURELY_HU = -100


@dataclass(frozen=True)
class Reference:
    """An acquired CT and, from a dataset of X-rays, the case that it belongs to."""

    volume: Path
    case: Case | None = None


def holds_volumes(references: Path) -> bool:
    """Whether references are CTs: a dataset of X-rays, or volumes that reach below -100
    HU, as air does and no label.
    """
    if exam_layout.matches(references):
        return True
    return any(_reaches_air(file) for file in _first_readable(references))


def _first_readable(folder: Path) -> Iterator[Path]:
    """The first image of a folder that can be read, if there is one."""
    for file in image_files(folder).values():
        try:
            read_header(file)
        except FormatError:
            continue
        yield file
        return


def _reaches_air(file: Path) -> bool:
    try:
        return bool((read_volume(file).array < SURELY_HU).any())
    except FormatError:  # its voxels; it is said of the case
        return False


def chosen_window(settings: Mapping[str, Any]) -> HuWindow:
    """The HU window from `--set window=[low,high]`; raises `DataError` for other
    settings or no window.
    """
    unknown = [name for name in settings if name != "window"]
    if unknown:
        raise DataError(
            f"--set {unknown[0]}: volumes have one setting, window=[low,high] in HU"
        )
    edges = settings.get("window", WINDOW)
    listed = isinstance(edges, list | tuple)
    numbers = listed and all(isinstance(edge, int | float) for edge in edges)
    if not numbers or len(edges) != 2 or edges[0] >= edges[1]:
        raise DataError(
            f"--set window={edges}: give two HU, the lower first: window=[-1000,1024]"
        )
    return float(edges[0]), float(edges[1])


def evaluate_volumes(
    predictions: Path, references: Path, *, task: str, window: HuWindow = WINDOW
) -> MetricsFile:
    """Compare synthetic CTs with the CTs of the same name; returns what metrics.json
    holds.

    predictions: a folder of volumes in HU (or one file). references: CTs, or a dataset
    of X-rays, whose views then also give the projection RMSE. task: what the
    predictions answer, for metrics.json. window: HU. Raises `DataError` if no case is
    in both, `GeometryError` naming the case whose prediction is oblique.
    """
    predicted, warnings = finished(predictions, image_files(predictions))
    expected = named_alike(predictions, references, predicted, _references(references))
    cases = {}
    sources = {}
    unread = []
    common = sorted(set(predicted) & set(expected))
    files_of = {name: (predicted[name], expected[name].volume) for name in common}
    warnings += against_themselves(files_of)
    for name in common:
        try:
            files = measured_files(predicted[name], expected[name].volume)
            cases[name] = _measure(name, predicted[name], expected[name], window)
            sources[name] = files
        except FormatError as error:
            unread.append(not_measured(name, str(error)))
    if not cases:
        raise DataError(f"{predictions}: no case can be measured: {unread[0]}")
    warnings += [*unusable_files(predictions), *unusable_files(references), *unread]
    alone = sorted(set(predicted) - set(expected))
    if alone:
        warnings.append(
            f"prediction without a reference CT, not measured: {few(alone)}"
        )
    coarser = sum(row["psnr_ceiling_db"] is not None for row in cases.values())
    if coarser:
        warnings.append(
            f"{coarser} of {len(cases)} references were brought to the grid of the "
            "prediction for psnr_db; psnr_reference_grid_db is measured on their own, "
            "where no volume on the prediction's grid exceeds psnr_ceiling_db"
        )
    metrics = collect_volumes(cases, task=task, window=window, warnings=warnings)
    metrics["sources"] = sources
    return metrics


def _measure(
    name: str, prediction: Path, reference: Reference, window: HuWindow
) -> VolumeMetrics:
    """Metrics of one case; its name stands in the errors."""
    exam = None if reference.case is None else read_exam(reference.case)
    try:
        return measure_volume(
            read_volume(prediction),
            read_volume(reference.volume),
            window=window,
            projections=exam,
        )
    except GeometryError as error:
        raise GeometryError(f"{name}: {error}") from error


def _references(path: Path) -> dict[str, Reference]:
    """The CTs by case name, with the exams that they belong to if there are any."""
    if not exam_layout.matches(path):
        return {name: Reference(file) for name, file in image_files(path).items()}
    return {
        case.name: Reference(case.volume, case)
        for case in exam_layout.load(path).cases
        if case.volume is not None
    }
