"""The record of a run that its figures follow from its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trivox.files import file_hash, read_json, write_json
from trivox.schema import Frozen, stamped

RECORD = "verified.json"


class VerifiedFile(Frozen):
    """What verified.json says beside its task and version.

    files: sha256 of what this holds for; numbers: that follow from the files; unchecked:
    a line each.
    """

    files: dict[str, str]
    numbers: int
    cases_predicted_again: int
    unchecked: tuple[str, ...]


def write_record(
    run: Path, task: str, *, numbers: int, cases: int, unchecked: Sequence[str]
) -> None:
    """Say in a run that its figures and its model, as they are now, were verified."""
    record = VerifiedFile(
        files=_hashes(run),
        numbers=numbers,
        cases_predicted_again=cases,
        unchecked=tuple(unchecked),
    )
    write_json(run / RECORD, stamped(record.model_dump(), task))


def remove_record(run: Path) -> None:
    """Say no longer that a run was verified."""
    (run / RECORD).unlink(missing_ok=True)


def _hashes(run: Path) -> dict[str, str]:
    """Of what the figures and the model are."""
    names = ("validation/metrics.json", "bundle/bundle.json", "splits.json")
    return {name: file_hash(run / name) for name in names if (run / name).is_file()}


def verified_line(run: Path) -> str:
    """What a report says of its own figures."""
    file = run / RECORD
    content: Mapping[str, Any] = read_json(file) if file.is_file() else {}
    if content.get("files") != _hashes(run):
        return "not verified ('trivox verify')"
    return f"verified: {content['numbers']} numbers follow from the files"
