"""What a file was when something was derived from it, so that a later change is
noticed.
"""

import hashlib
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from trivox.errors import FormatError
from trivox.schema import Frozen

FRESH_NS = 2_000_000_000
"""A file that changed so short a time ago may change once more and keep its times: the
coarsest file systems count in two seconds.
"""
DETACHED = (".mhd", ".nhdr")
"""Headers whose voxels lie in other files."""
PAIR = (".hdr", ".img")
"""Header and voxels of Analyze and NIfTI."""
HEADER_BYTES = 1 << 16
POINTER = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)(.*)", re.M | re.S | re.I)
"""Where such a header says which files they are: the rest of it."""
ADVICE = "check the path and its rights"


class Source(Frozen):
    """A file or folder as it was: bytes in all, when content and when anything of it
    last changed (0: too short before to be told by time), and the hash of its content.
    """

    size: int
    modified_ns: int
    changed_ns: int
    sha256: str

    def looks_like(self, stamp: "Stamp") -> bool:
        """Whether size and times are these, so that nothing need be read."""
        return (self.size, self.modified_ns, self.changed_ns) == stamp


class Stamp(NamedTuple):
    """What is known of a file without reading it."""

    size: int
    modified_ns: int
    changed_ns: int


def source_of(path: Path, recorded: Source | None = None) -> Source:
    """What a file or a folder (a DICOM series) is now; with a header that names other
    files, these too.

    recorded: what it was before; where size and times are the same, nothing is read.
    Raises `FormatError` naming a file that is missing or cannot be read.
    """
    try:
        parts = parts_of(path)
        stamp = _stamp_of(parts)
        if recorded is not None and recorded.looks_like(stamp):
            return recorded
        if time.time_ns() - stamp.changed_ns < FRESH_NS:
            digest = _read_all(path, parts)
            return Source(size=stamp.size, modified_ns=0, changed_ns=0, sha256=digest)
        return Source(**stamp._asdict(), sha256=_known_digest(path, stamp))
    except OSError as error:
        reason = error.strerror or error
        raise FormatError(f"{path}: cannot be read ({reason}); {ADVICE}") from error


def is_unchanged(path: Path, recorded: Source | None) -> bool:
    """Whether a file holds what it held; one that was only touched does, one that
    cannot be read does not.
    """
    if recorded is None:
        return False
    try:
        return source_of(path, recorded).sha256 == recorded.sha256
    except FormatError:
        return False


def sources_of(
    files: Mapping[str, Path], recorded: Mapping[str, Source] | None = None
) -> dict[str, Source]:
    """`source_of` each; recorded: what they were before, under the same names."""
    before = recorded or {}
    return {name: source_of(file, before.get(name)) for name, file in files.items()}


def are_unchanged(files: Mapping[str, Path], recorded: Mapping[str, Source]) -> bool:
    """Whether these are the files of the record, and none of them changed."""
    if files.keys() != recorded.keys():
        return False
    return all(is_unchanged(file, recorded[name]) for name, file in files.items())


def parts_of(path: Path) -> list[Path]:
    """The files that a path stands for, itself first."""
    if path.is_dir():
        inside = sorted(path.rglob("*"))
        return [path, *(file for file in inside if not file.name.startswith("."))]
    others: list[Path] = []
    if path.suffix.lower() in PAIR:
        others = [path.with_suffix(suffix) for suffix in PAIR]
    if path.suffix.lower() in DETACHED:
        others = _pointed_at(path)
    there = [file for file in dict.fromkeys(others) if file.is_file()]
    return [path, *(file for file in there if file != path)]


def _pointed_at(header: Path) -> list[Path]:
    """Files beside a header that it names as holding the voxels."""
    with header.open("rb") as opened:
        named = POINTER.search(opened.read(HEADER_BYTES))
    if named is None:
        return []
    words = named[1].decode("utf-8", errors="replace").splitlines() or [""]
    listed = words[0].strip().upper().startswith("LIST")
    lines = words if listed else words[:1]
    if "%" in words[0]:  # a pattern of numbers
        return sorted(header.parent.iterdir())
    names = [line.strip() for line in lines if line.isprintable()]
    return [header.parent / name for name in names if name]


def _stamp_of(parts: Iterable[Path]) -> Stamp:
    facts = [part.stat() for part in parts]
    return Stamp(
        sum(each.st_size for each in facts),
        max(each.st_mtime_ns for each in facts),
        max(each.st_ctime_ns for each in facts),
    )


@lru_cache(maxsize=1 << 16)
def _known_digest(path: Path, stamp: Stamp) -> str:
    """The digest of a file that looks as it does now; stages ask one after another."""
    return _read_all(path, parts_of(path))


def _read_all(path: Path, parts: Iterable[Path]) -> str:
    """SHA-256 of a file; of several, over their names and theirs."""
    files = [part for part in parts if part.is_file()]
    if files == [path]:
        return _digest(path)
    folder = path if path.is_dir() else path.parent
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(folder)}\0{_digest(file)}\n".encode())
    return whole.hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
