"""Which exams in a folder were rendered there, so that no others are replaced."""

from collections.abc import Mapping
from pathlib import Path

from trivox.datasets.dataset import NOTE
from trivox.datasets.exams import EXAM_FILES, PREVIEW
from trivox.datasets.layouts.exams import PATIENTS
from trivox.errors import DataError, few
from trivox.files import write_json
from trivox.outputs import (
    ADVICE,
    Contents,
    Kind,
    is_there,
    object_with,
    require_folder,
    require_folder_place,
    text_with,
)
from trivox.schema import Frozen, read_stamped, stamped

RENDERED = "The X-rays are rendered from CT (digitally reconstructed radiographs), not acquired."
"""What reports have to say of a rendered dataset."""
RECORD = "rendered.json"
KINDS = {
    RECORD: Kind("list of renderings", object_with("format_version", "exams")),
    NOTE: Kind("note", text_with(RENDERED)),
}


class RenderedFile(Frozen):
    """What rendered.json says beside its task and version: names of the exams."""

    exams: tuple[str, ...]


def require_rendered(out: Path, scans: Mapping[str, Path]) -> None:
    """Raise `DataError` if rendering `scans` (name -> CT) into `out` would replace an
    exam that was not rendered there, or a CT that is read.
    """
    require_folder_place(out / PATIENTS)
    earlier = _rendered(out)
    _require_no_input(out, scans)
    new = [name for name in scans if name not in earlier]
    places = tuple(f"{PATIENTS}/{name}" for name in new)
    require_folder(out, Contents("rendering", KINDS, others=places))
    for name in scans:
        _require_only_an_exam(out / PATIENTS / name)


def claim_exam(out: Path, name: str, task: str) -> None:
    """Say before it is written that an exam in `out` is rendered."""
    exams = tuple(sorted({*_rendered(out), name}))
    write_json(out / RECORD, stamped(RenderedFile(exams=exams).model_dump(), task))


def _rendered(out: Path) -> list[str]:
    """Names of the exams that were rendered in `out`; trivox 0.1.0 wrote no list, but a
    note and pictures.
    """
    record = out / RECORD
    if record.is_file() and KINDS[RECORD].wrote(record):
        content = read_stamped(RenderedFile, record, error=DataError, advice=ADVICE)
        return list(content.exams)
    note = out / NOTE
    if is_there(record) or not note.is_file() or not KINDS[NOTE].wrote(note):
        return []
    pictures = (out / PATIENTS).glob(f"*/{PREVIEW}")
    return [picture.parent.name for picture in pictures]


def _require_only_an_exam(folder: Path) -> None:
    """Raise `DataError` if a folder that is replaced holds more than an exam."""
    if not folder.is_dir():
        return
    seen = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    foreign = sorted(seen - {*EXAM_FILES})
    if foreign:
        raise DataError(
            f"{folder}: {few(foreign)} would be lost, and no rendering of trivox wrote "
            f"them; {ADVICE}"
        )


def _require_no_input(out: Path, scans: Mapping[str, Path]) -> None:
    patients = (out / PATIENTS).resolve()
    written = {patients / name for name in scans}
    read = [
        str(scan)
        for scan in scans.values()
        if not written.isdisjoint(scan.resolve().parents)
    ]
    if read:
        raise DataError(
            f"{few(read)}: is an input, and would be written over; {ADVICE}"
        )
