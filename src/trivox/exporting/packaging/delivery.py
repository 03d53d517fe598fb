"""DICOM objects on their way from a prediction to where a router takes them."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trivox.errors import DataError
from trivox.files import atomic_path
from trivox.volumes.dicom.files import load
from trivox.volumes.header import reading

ENDING = ".dcm"
NO_RESULTS = ("inputs", "output", "formats", "sources", "written")
"""Parts of a record that are of files."""

Naming = Callable[[str, str], str]
"""From the UIDs of the series and the object to a file's name without its ending."""


def by_object(series: str, instance: str) -> str:
    """Named after the object."""
    return instance


def by_series(series: str, instance: str) -> str:
    """As mercure names files: the series, then the object."""
    return f"{series}#{instance}"


def require_predicted(records: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise `DataError` with the reasons of the cases that failed."""
    reasons = [record["error"] for record in records.values() if "error" in record]
    if reasons:
        raise DataError("; ".join(map(str, reasons)))


def deliver(source: Path, output: Path, naming: Naming = by_object) -> list[str]:
    """Copy all DICOM objects below `source` into `output`, each whole before it has its
    name; returns the names.

    Raises `DataError` where there is none.
    """
    objects = sorted(source.rglob(f"*{ENDING}"))
    if not objects:
        raise DataError("the prediction holds no DICOM object; ask for another format")
    output.mkdir(parents=True, exist_ok=True)
    names = []
    for path in objects:
        name = _name_of(path, naming)
        with atomic_path(output / name) as temporary:
            shutil.copyfile(path, temporary)
        names.append(name)
    return names


def _name_of(path: Path, naming: Naming) -> str:
    with reading(path):
        dataset = load(path, pixels=False)
        series = str(dataset.SeriesInstanceUID)
        instance = str(dataset.SOPInstanceUID)
    return f"{naming(series, instance)}{ENDING}"


def findings(records: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What was predicted of each case, without names of files."""
    return [_finding(record) for record in records.values()]


def doubted(records: Mapping[str, Mapping[str, Any]]) -> int:
    """How many predictions the model itself says not to trust."""
    return sum(bool(record.get("abstain")) for record in records.values())


def _finding(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in NO_RESULTS}
