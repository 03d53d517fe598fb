"""The record of a run that its figures follow from its files."""

from collections.abc import Sequence
from pathlib import Path

from trivox.errors import FormatError
from trivox.files import file_hash, write_json
from trivox.schema import Frozen, read_stamped, stamped

RECORD = "verified.json"
AGAIN = "delete it, and verify the run again"
NOT_VERIFIED = "not verified ('trivox verify')"


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
    """What a report says of its own figures; raises `FormatError` for a record that is
    damaged.
    """
    file = run / RECORD
    if not file.is_file():
        return NOT_VERIFIED
    record = read_stamped(VerifiedFile, file, error=FormatError, advice=AGAIN)
    if record.files != _hashes(run):
        return NOT_VERIFIED
    return f"verified: {record.numbers} numbers follow from the files"
