"""Folders without the persons: every object and scan by itself, a bad one set aside while
the others go on.

What is handed on holds no name of a source. Which file became which stands in a table
beside the key, for whoever keeps the key.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trivox.config.choices import DateRule
from trivox.errors import DataError, FormatError
from trivox.files import atomic_path, write_bytes, write_json, write_text
from trivox.outputs import Contents, Kind, object_with, require_folder
from trivox.privacy.key import Key
from trivox.privacy.objects import METHOD, AsideError, Cleaned, cleaned_object
from trivox.privacy.scans import folder_name, is_scan, scan_name, write_cleaned
from trivox.schema import Frozen, read_stamped, stamped
from trivox.volumes.dicom.native import NativeDecoder, native_decoder
from trivox.volumes.dicom.signature import is_dicom

RECORD = "deidentified.json"
WROTE = Kind("record of a de-identification", object_with("method", "key", "dates"))
CONTENTS = Contents("de-identification", {RECORD: WROTE}, (RECORD,))
HEADS = frozenset({"CT", "MR", "PET", "enhanced CT", "enhanced MR", "enhanced PET"})
"""Kinds of images that a face can be computed from."""
FACES = (
    "faces can be computed from CT, MR and PET of heads, and people recognised by them: "
    "deface such scans before they are handed on"
)
DAMAGED = "cannot be read"
UNKNOWN = "is no DICOM object and no scan"


@dataclass
class Outcome:
    """What became of the files.

    written: name in the folder -> its source; aside: reason -> sources; patients:
    pseudonyms; heads: whether there are images that a face can be computed from; report:
    what is said of it in the folder.
    """

    folder: Path
    written: dict[str, Path] = field(default_factory=dict)
    aside: dict[str, list[Path]] = field(default_factory=dict)
    patients: set[str] = field(default_factory=set)
    heads: bool = False
    report: "DeidentifiedFile | None" = None

    @property
    def damaged(self) -> int:
        """Files that cannot be read."""
        return len(self.aside.get(DAMAGED, []))


class DeidentifiedFile(Frozen):
    """What deidentified.json says beside its version: nothing of a source.

    key: its fingerprint; written: files; patients: how many; set_aside: files by reason;
    notes: what the folder's reader has to know.
    """

    method: str
    key: str
    dates: DateRule
    written: int
    patients: int
    set_aside: dict[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Cleaning:
    """One run over files.

    key, dates: see `Key` and `DateRule`; out: the folder that is handed on.
    """

    key: Key
    dates: DateRule
    out: Path
    outcome: Outcome
    digests: dict[str, str] = field(default_factory=dict)

    def take(self, root: Path, file: Path, native: NativeDecoder) -> None:
        """Clean a file, or set it aside; raises what ends the work: a full disk."""
        try:
            if is_dicom(file):
                self._write_object(
                    file, cleaned_object(file, self.key, self.dates, native)
                )
            elif is_scan(file):
                self._write_scan(root, file)
            else:
                raise AsideError(UNKNOWN)
        except AsideError as error:
            self.outcome.aside.setdefault(str(error), []).append(file)
        except DataError:
            self.outcome.aside.setdefault(DAMAGED, []).append(file)

    def _write_object(self, file: Path, cleaned: Cleaned) -> None:
        name = _name(cleaned)
        self._require_alone(name, hashlib.sha256(cleaned.content).hexdigest())
        write_bytes(self.out / name, cleaned.content)
        self.outcome.written[name] = file
        self.outcome.patients.add(cleaned.patient)
        self.outcome.heads |= cleaned.kind in HEADS

    def _write_scan(self, root: Path, file: Path) -> None:
        folders = file.parent.relative_to(root).parts
        hidden = [folder_name(part, self.key) for part in folders]
        name = "/".join([*hidden, scan_name(file, self.key)])
        self._require_alone(name, str(file))
        with atomic_path(self.out / name) as temporary:
            write_cleaned(file, temporary)
        self.outcome.written[name] = file
        self.outcome.heads = True

    def _require_alone(self, name: str, digest: str) -> None:
        """Raise `AsideError` where another file took the name with other content."""
        if self.digests.setdefault(name, digest) != digest:
            raise AsideError("has the name or UID of another file")


def _name(cleaned: Cleaned) -> str:
    """A place for an object: patient, study, series."""
    number = f"{cleaned.number:05d}-" if cleaned.number > 0 else ""
    return (
        f"{cleaned.patient}/study-{cleaned.study[:6]}/series-{cleaned.series[:6]}/"
        f"{number}{cleaned.instance}.dcm"
    )


def require_same_key(out: Path, key: Key, dates: DateRule) -> None:
    """Raise `DataError` where a folder holds what another key or rule gave, or what is
    somebody else's.
    """
    require_folder(out, CONTENTS)
    if not (out / RECORD).exists():
        if out.is_dir() and any(out.iterdir()):
            raise DataError(f"{out}: is not empty; choose another --out")
        return
    before = read_stamped(
        DeidentifiedFile, out / RECORD, error=DataError, advice="choose another --out"
    )
    if (before.key, before.dates) != (key.fingerprint, dates):
        raise DataError(
            f"{out}: was made with another key or another rule for dates; choose "
            "another --out"
        )


def clean(
    sources: Sequence[Path],
    out: Path,
    key: Key,
    *,
    dates: DateRule,
    progress: Callable[[Sequence[tuple[Path, Path]]], Iterable[tuple[Path, Path]]],
) -> Outcome:
    """Clean files and all files below folders into `out`; see the module."""
    require_same_key(out, key, dates)
    files = [*_files(sources)]
    outcome = Outcome(out)
    cleaning = Cleaning(key, dates, out, outcome)
    _record(outcome, key, dates)
    with native_decoder() as native:
        for root, file in progress(files):
            cleaning.take(root, file, native)
    _record(outcome, key, dates)
    return outcome


def _files(sources: Sequence[Path]) -> Iterator[tuple[Path, Path]]:
    """Each file with the folder that it is looked for in."""
    for source in sources:
        if source.is_file():
            yield source.parent, source
        elif source.is_dir():
            below = sorted(path for path in source.rglob("*") if path.is_file())
            yield from ((source, path) for path in below)
        else:
            raise FormatError(f"{source}: not found; check the path")


def _record(outcome: Outcome, key: Key, dates: DateRule) -> None:
    """What was done, for those who are handed the folder: no name of a source."""
    aside = {reason: len(files) for reason, files in sorted(outcome.aside.items())}
    report = DeidentifiedFile(
        method=METHOD,
        key=key.fingerprint,
        dates=dates,
        written=len(outcome.written),
        patients=len(outcome.patients),
        set_aside=aside,
        notes=(FACES,) if outcome.heads else (),
    )
    write_json(outcome.folder / RECORD, stamped(report.model_dump(), None))
    outcome.report = report


def table_of(key_file: Path) -> Path:
    """Where it stands which file became which: beside the key."""
    return key_file.with_name(f"{key_file.name}.csv")


def write_table(key_file: Path, outcome: Outcome) -> None:
    """Add to the table beside the key, which its keeper alone may read."""
    file = table_of(key_file)
    rows = _rows_of(file)
    for name, source in outcome.written.items():
        rows[str(source.absolute())] = (f"{outcome.folder.name}/{name}", "")
    for reason, sources in outcome.aside.items():
        for source in sources:
            rows[str(source.absolute())] = ("", reason)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["source", "result", "set aside"])
    writer.writerows([source, *row] for source, row in sorted(rows.items()))
    write_text(file, text.getvalue())
    file.chmod(0o600)


def _rows_of(file: Path) -> dict[str, tuple[str, str]]:
    if not file.exists():
        return {}
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))[1:]
            return {source: (result, reason) for source, result, reason in rows}
    except (ValueError, csv.Error) as error:
        raise DataError(
            f"{file}: is no table of a de-identification; move it away"
        ) from error


def lines_of(outcome: Outcome, key_file: Path) -> list[str]:
    """What is said at the end."""
    counts = Counter({reason: len(files) for reason, files in outcome.aside.items()})
    people = len(outcome.patients)
    lines = [f"{len(outcome.written)} files of {people} patients in {outcome.folder}"]
    for reason, count in counts.most_common():
        lines.append(f"warning: set aside: {count} files: each {reason}")
    if counts:
        lines.append(f"which files these are stands in {table_of(key_file)}")
    if outcome.heads:
        lines.append(f"warning: {FACES}")
    return lines
