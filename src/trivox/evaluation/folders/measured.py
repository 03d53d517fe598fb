"""Which files figures were measured on, so that it is noticed when one of them changed
since, and what else their reader has to know.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from trivox.errors import DataError, few
from trivox.evaluation.metrics.content import MeasuredFile, MetricsFile
from trivox.inference.records import unfinished_cases
from trivox.sources import Source, is_unchanged, source_of

T = TypeVar("T")


def measured_files(prediction: Path, reference: Path | None) -> dict[str, MeasuredFile]:
    """What the files of a case are, before they are measured."""
    files = {"prediction": _measured(prediction)}
    if reference is not None:
        files["reference"] = _measured(reference)
    return files


def against_themselves(files: Mapping[str, tuple[Path, Path]]) -> list[str]:
    """A warning about cases (name -> prediction and reference) of which both are one
    file: what is measured there says nothing of a model.
    """
    same = [case for case, both in files.items() if _are_one(*both)]
    if not same:
        return []
    return [
        f"prediction and reference of {len(same)} of {len(files)} cases are one file, "
        f"measured against itself: {few(same)}"
    ]


def _are_one(prediction: Path, reference: Path) -> bool:
    there = prediction.exists() and reference.exists()
    return there and prediction.samefile(reference)


def _measured(file: Path) -> MeasuredFile:
    source = source_of(file)
    return MeasuredFile(
        file=str(file.absolute()),
        size=source.size,
        modified_ns=source.modified_ns,
        changed_ns=source.changed_ns,
        sha256=source.sha256,
    )


def changed_since(metrics: MetricsFile) -> list[str]:
    """Warnings about cases whose files are there and are not what was measured."""
    changed = [
        case
        for case, files in metrics.get("sources", {}).items()
        if any(_has_changed(file) for file in files.values())
    ]
    if not changed:
        return []
    return [
        f"{len(changed)} of {len(metrics['cases'])} cases changed since they were "
        f"measured, measure again: {few(changed)}"
    ]


def _has_changed(measured: MeasuredFile) -> bool:
    try:
        recorded = Source.model_validate(
            {name: measured.get(name) for name in Source.model_fields}
        )
    except ValidationError:
        return False
    file = Path(measured["file"])
    return file.exists() and not is_unchanged(file, recorded)


def finished(
    predictions: Path, maps: Mapping[str, T]
) -> tuple[dict[str, T], list[str]]:
    """Predictions without those that `predictions.json` says were begun and not ended,
    and warnings; raises `DataError` where none is left.
    """
    unfinished = set(unfinished_cases(predictions)) & maps.keys()
    if not unfinished:
        return dict(maps), []
    listed = few(sorted(unfinished))
    if len(unfinished) == len(maps):
        raise DataError(
            f"{predictions}: no prediction was finished ({listed}); predict again"
        )
    rest = {name: file for name, file in maps.items() if name not in unfinished}
    return rest, [f"prediction not finished, not measured: {listed}"]


def warnings_in(metrics: MetricsFile) -> list[str]:
    """What a reader of the figures has to know."""
    classes = metrics.get("classification", {})
    return [*metrics.get("warnings", []), *classes.get("warnings", [])]
