"""Scans that lie on the server already, in the one folder that clients may name files of.

They are copied when the job is queued, through folders that are opened one after the
other without following links: what is computed is what lay there then, and nothing
outside can be reached.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trivox.service.serve.api.limits import no_space
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.api.uploads import Part, format_suffix, too_large
from trivox.service.serve.jobs.folders import NO_SPACE, sync_folder
from trivox.service.serve.work.engine import JobError
from trivox.service.serve.work.staging import EXAM, channel_of, is_image

CHUNK = 1 << 20
DICOM = ".dcm"
MOST = 4096
"""Files of a folder."""


def copied(
    root: Path, path: str, folder: Path, channels: Sequence[str], most: int
) -> list[Part]:
    """Copy a scan of `root` (a file, or a folder of a DICOM series, an exam or a file for
    each channel) as the parts of a job; raises `ProblemError`.
    """
    parts = parts_of(path)
    try:
        with opened_below(root, parts) as opened:
            if stat.S_ISDIR(os.fstat(opened).st_mode):
                copies = _copied_folder(opened, folder, channels, most)
            else:
                copies = [_copied_file(opened, parts[-1], folder / "0000", most)]
        sync_folder(folder)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise no_space() from error
        raise nothing_there() from error
    return copies


def nothing_there() -> ProblemError:
    """What is said of a path that leads to no scan."""
    return ProblemError(
        "no-such-path", "name a scan by its path in the data folder of the server"
    )


def parts_of(path: str) -> list[str]:
    """The names that a path is made of; raises `ProblemError` for one that leads out."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or path.startswith("/") or ".." in parts or "\0" in path:
        raise nothing_there()
    return parts


def _entered(name: str | Path, place: int | None = None) -> int:
    """A folder opened for a look, which must not be a link within another one."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if place is None:
        return os.open(name, flags)
    return os.open(name, flags | os.O_NOFOLLOW, dir_fd=place)


def _looked_at(name: str, place: int) -> int:
    """A file or folder in a folder opened, which must not be a link; nothing is waited
    for.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return os.open(name, flags, dir_fd=place)


@contextmanager
def opened_below(root: Path, parts: Sequence[str]) -> Iterator[int]:
    """A file or folder below `root`; no step follows a link."""
    current = _entered(root)
    try:
        for part in parts[:-1]:
            inner = _entered(part, current)
            os.close(current)
            current = inner
        last = _looked_at(parts[-1], current)
        try:
            yield last
        finally:
            os.close(last)
    finally:
        os.close(current)


def _copied_folder(
    opened: int, folder: Path, channels: Sequence[str], most: int
) -> list[Part]:
    names = sorted(name for name in os.listdir(opened) if not name.startswith("."))
    if len(names) > MOST:
        raise too_large(most)
    copies: list[Part] = []
    for place, name in _placed(names, channels).items():
        left = most - sum(part.size for part in copies)
        file = _looked_at(name, opened)
        try:
            copies.append(_copied_file(file, name, folder / place, left))
        finally:
            os.close(file)
    return copies


def _placed(names: Sequence[str], channels: Sequence[str]) -> dict[str, str]:
    """What the files of a folder are called in the job: new name -> name."""
    if any(name in EXAM for name in names):
        return {name: name for name in names if name in EXAM}
    images = [name for name in names if is_image(name)]
    if not images:
        return {f"{number:04d}{DICOM}": name for number, name in enumerate(names)}
    try:
        placed = {f"{channel_of(name, channels):04d}": name for name in images}
    except JobError as error:
        raise ProblemError("invalid-request", error.detail) from error
    if len(placed) < len(images):
        raise ProblemError("invalid-request", "the folder holds more than one case")
    return placed


def _copied_file(opened: int, name: str, target: Path, most: int) -> Part:
    """Copy a plain file; its suffix follows from its content or its name."""
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        raise nothing_there()
    digest = hashlib.sha256()
    size = 0
    head = b""
    with target.open("xb") as written:
        while chunk := os.read(opened, CHUNK):
            head = head or chunk
            size += len(chunk)
            if size > most:
                raise too_large(most)
            digest.update(chunk)
            written.write(chunk)
        written.flush()
        os.fsync(written.fileno())
    is_named = target.name in EXAM or target.suffix == DICOM
    suffix = "" if is_named else format_suffix(head, name)
    final = target.with_name(f"{target.name}{suffix}")
    target.rename(final)
    return Part(final, size, digest.hexdigest())
