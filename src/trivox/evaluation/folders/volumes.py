"""A folder of synthetic CTs against the acquired ones: which files belong together, and
the content of metrics.json.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trivox.datasets.dataset import Case
from trivox.errors import DataError, GeometryError
from trivox.evaluation.folders.volume_summary import collect_reconstructions
from trivox.evaluation.metrics.volumes import (
    WINDOW,
    Row,
    Window,
    evaluate_reconstruction,
)
from trivox.volumes.formats import read_volume

SURELY_HU = -100


@dataclass(frozen=True)
class Reference:
    """An acquired CT and, from a dataset of X-rays, the exam that it belongs to."""

    volume: Path
    exam: Case | None = None


def is_reconstruction(references: Path) -> bool:
    """Whether references are CTs: a dataset of X-rays, or volumes that reach below -100
    HU, as air does and no label.
    """
    from trivox.datasets.layouts import exams as xray_layout

    if xray_layout.matches(references):
        return True
    first = next(iter(_volumes(references).values()), None)
    return first is not None and bool((read_volume(first).array < SURELY_HU).any())


def chosen_window(settings: Mapping[str, Any]) -> Window:
    """The HU window from `--set window=[low,high]`; raises `DataError` for other
    settings or no window.
    """
    unknown = [name for name in settings if name != "window"]
    if unknown:
        raise DataError(
            f"--set {unknown[0]}: volumes have one setting, window=[low,high] in HU"
        )
    edges = settings.get("window", WINDOW)
    numbers = isinstance(edges, list | tuple) and all(
        isinstance(edge, int | float) for edge in edges
    )
    if not numbers or len(edges) != 2 or edges[0] >= edges[1]:
        raise DataError(
            f"--set window={edges}: give two HU, the lower first: window=[-1000,1024]"
        )
    return float(edges[0]), float(edges[1])


def evaluate_reconstructions(
    predictions: Path, references: Path, *, window: Window = WINDOW
) -> dict[str, Any]:
    """Compare synthetic CTs with the CTs of the same name; returns what metrics.json
    holds.

    predictions: a folder of volumes in HU (or one file). references: CTs, or a dataset
    of X-rays, whose views then also give the projection RMSE. window: HU. Raises
    `DataError` if no case is in both, `GeometryError` naming the case whose prediction
    is oblique.
    """
    found, expected = _volumes(predictions), _references(references)
    if predictions.is_file() and references.is_file():
        expected = dict(zip(found, expected.values(), strict=True))
    common = sorted(set(found) & set(expected))
    if not common:
        raise DataError(
            f"{predictions} and {references}: no case name is in both ({_few(found)} and {_few(expected)}); "
            "give prediction and CT of a case the same name"
        )
    alone = sorted(set(found) - set(expected))
    warnings = (
        [f"prediction without a reference CT, not measured: {_few(alone)}"]
        if alone
        else []
    )
    cases = {
        name: _measured(name, found[name], expected[name], window) for name in common
    }
    lower = [name for name, row in cases.items() if row["psnr_ceiling_db"] is not None]
    if lower:
        warnings.append(
            f"{len(lower)} of {len(cases)} references were brought to the grid of the prediction; psnr_ceiling_db is what a "
            "perfect volume on that grid scores against the reference's own"
        )
    return collect_reconstructions(cases, window=window, warnings=warnings)


def _measured(name: str, prediction: Path, reference: Reference, window: Window) -> Row:
    from trivox.datasets.exams import read_exam

    exam = None if reference.exam is None else read_exam(reference.exam)
    try:
        return evaluate_reconstruction(
            read_volume(prediction),
            read_volume(reference.volume),
            window=window,
            projections=exam,
        )
    except GeometryError as error:
        raise GeometryError(f"{name}: {error}") from error


def _references(path: Path) -> dict[str, Reference]:
    from trivox.datasets.layouts import exams as xray_layout

    if not xray_layout.matches(path):
        return {name: Reference(file) for name, file in _volumes(path).items()}
    cases = xray_layout.load(path).cases
    return {
        case.name: Reference(case.volume, case)
        for case in cases
        if case.volume is not None
    }


def _volumes(path: Path) -> dict[str, Path]:
    """Files of volumes by case name: those in a folder, or the file itself."""
    from trivox.datasets.listing import image_stem, is_image_file, list_images

    if not path.exists():
        raise DataError(f"{path}: not found; check the path")
    if is_image_file(path):
        return {image_stem(path): path}
    return list_images(path) if path.is_dir() else {}


def _few(names: Collection[str], *, shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(list(names)[:shown]) + more
