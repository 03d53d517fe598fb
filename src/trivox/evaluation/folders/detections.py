"""Detection maps in a folder of predictions against the lesions of the references."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.datasets.lesions import lesion_indices
from trivox.errors import DataError, FormatError, LabelError, few
from trivox.evaluation.folders.pairs import LabelPair, not_measured
from trivox.evaluation.metrics.detection.scores import (
    CONVENTION,
    Pooled,
    froc_curve,
    match_case,
    measure_detections,
)
from trivox.evaluation.metrics.detection_content import (
    DetectionCase,
    DetectionSection,
)
from trivox.inference.detection.candidates import is_detection_map
from trivox.inference.records import meant_labels, read_records
from trivox.inference.writing import file_names
from trivox.volumes.formats import read_labels, read_volume
from trivox.volumes.segmentations.parts import agree, brought_onto
from trivox.volumes.segmentations.segments import Grid

Placed = Sequence[tuple[LabelPair, Grid]]
Meaning = Callable[[LabelPair], LabelScheme]


def detection_section(
    predictions: Path, placed: Placed, meaning: Meaning
) -> tuple[DetectionSection | None, list[str]]:
    """The section `detection` of metrics.json, None where no detection map beside the
    predictions can be measured; and warnings about those that cannot.

    placed: label maps with the voxels on which they are compared; meaning: of the
    values of a case. Lesions are those that the predictions' records name, else labels
    that are named like some, else all labels.
    """
    names = {pair.case: _map_of(predictions, pair.case) for pair, _ in placed}
    there = {case: file for case, file in names.items() if file.is_file()}
    records = _records(predictions)
    wanted = names if there else [case for case in names if case in records]
    warnings = _without_map([case for case in wanted if case not in there])
    if not there:
        return None, warnings
    lesion = _lesion(records)
    meant = meant_labels(predictions)
    cases: dict[str, DetectionCase] = {}
    unlike: dict[str, list[str]] = {}
    for pair, grid in placed:
        if pair.case not in there:
            continue
        scheme = meaning(pair)
        try:
            values = _values(pair.case, records, lesion, scheme, meant)
            matched = _matched(there[pair.case], pair, grid, scheme, values)
        except LabelError as error:
            unlike.setdefault(str(error), []).append(pair.case)
            continue
        except DataError as error:
            warnings.append(not_measured(f"lesions of {pair.case}", str(error)))
            continue
        cases[pair.case] = matched
        warnings += _contradiction(pair.case, matched, records)
    for reason, those in unlike.items():
        warnings.append(not_measured(f"lesions of {few(those)}", reason))
    if not cases:
        return None, warnings
    section: DetectionSection = {
        "convention": dict(CONVENTION),
        "lesion": lesion or _names(scheme, values),
        "cases": cases,
        "summary": measure_detections(cases),
        "curve": froc_curve(Pooled.of(cases)),
    }
    return section, warnings


def _map_of(predictions: Path, case: str) -> Path:
    folder = predictions if predictions.is_dir() else predictions.parent
    return folder / file_names(case, ["detection"])[1]


def _without_map(lacking: Sequence[str]) -> list[str]:
    if not lacking:
        return []
    return [f"lesions not measured, there is no detection map: {few(lacking)}"]


def _records(predictions: Path) -> Mapping[str, Mapping[str, Any]]:
    """What the predictions' records say of their lesions, by case."""
    try:
        content = read_records(predictions) if predictions.is_dir() else {}
    except DataError:
        return {}
    records = {
        case: record.get("detection")
        for case, record in content.get("cases", {}).items()
    }
    return {case: said for case, said in records.items() if isinstance(said, dict)}


def _lesion(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The labels that count as lesion; none where nothing says it."""
    said = (_said(record) for record in records.values())
    return next((lesion for lesion in said if lesion), [])


def _said(record: Mapping[str, Any]) -> list[str]:
    """The labels that a record says count as lesion; none where it says no names."""
    lesion = record.get("lesion")
    if not isinstance(lesion, list) or not all(
        isinstance(name, str) for name in lesion
    ):
        return []
    return lesion


def _values(
    case: str,
    records: Mapping[str, Mapping[str, Any]],
    lesion: Sequence[str],
    scheme: LabelScheme,
    meant: Mapping[str, int],
) -> list[int]:
    """Values that count as lesion in a reference: by name, else by the value that the
    model writes for it. Raises `LabelError` for names that say nothing, and a case in
    which others are meant than elsewhere.
    """
    if not lesion:
        return [scheme.values[index] for index in lesion_indices(scheme)]
    here = _said(records.get(case, {})) or lesion
    if set(here) != set(lesion):
        raise LabelError(
            f"the record calls {few(here)} lesion, those of other cases {few(lesion)}; "
            "predict all with one --detection"
        )
    known = {**meant, **scheme.labels}
    strange = [name for name in lesion if name not in known]
    if strange:
        raise LabelError(
            f"the records call {few(strange)} lesion, which the references do not have "
            f"({few(scheme.labels)})"
        )
    return [known[name] for name in lesion]


def _names(scheme: LabelScheme, values: Sequence[int]) -> list[str]:
    return [name for name, value in scheme.labels.items() if value in values]


def _matched(
    file: Path, pair: LabelPair, grid: Grid, scheme: LabelScheme, values: Sequence[int]
) -> DetectionCase:
    """Hits and false alarms of a case; raises `DataError` for a file that is no
    detection map of it.
    """
    volume = read_volume(file)
    lying = brought_onto(volume, grid, background=0)
    if not agree(lying, grid):
        raise FormatError(f"{file}: lies on other voxels than the reference")
    detections = lying.array[0]
    lowest = float(detections.min())
    highest = float(detections.max())
    if volume.channels != 1 or not (lowest >= 0 and highest <= 1):
        raise FormatError(
            f"{file}: a detection map has one channel of likelihoods from 0 to 1, this "
            f"one has {volume.channels} and goes from {lowest:g} to {highest:g}"
        )
    if not is_detection_map(detections):
        raise FormatError(
            f"{file}: voxels that touch have different likelihoods, so that they are no "
            "candidates; write one likelihood for each, as 'trivox predict --detection' "
            "does"
        )
    expected = read_labels(pair.reference, onto=grid, meaning=scheme).array[0]
    return match_case(detections, np.isin(expected, values))


def _contradiction(
    case: str, matched: DetectionCase, records: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """A warning where the record of a case says another likelihood than its map."""
    said = records.get(case, {}).get("likelihood", matched["likelihood"])
    if said == matched["likelihood"]:
        return []
    return [
        f"{case}: the record says a likelihood of {said}, the largest of its map is "
        f"{matched['likelihood']}; the map was changed, and counts"
    ]
