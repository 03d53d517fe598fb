"""A zip that somebody sent: looked at as a whole before anything of it is written."""

import re
import shutil
import stat
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from trivox.service.serve.jobs.states import Failure
from trivox.service.serve.work.engine import JobError

MEMBERS = 20_000
RATIO = 200
"""Bytes out of a byte in; images reach 5, zeros 1000."""
SMALL = 1 << 20
"""Bytes of a member whose ratio says nothing."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
DRIVE = re.compile(r"[A-Za-z]:")
SYSTEM = ("__MACOSX", "Thumbs.db", "desktop.ini", "DICOMDIR")
"""What systems leave in archives."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A zip whose members may be written. members: files, in the order of their names."""

    zip: zipfile.ZipFile
    members: tuple[zipfile.ZipInfo, ...]

    def write(self, member: zipfile.ZipInfo, file: Path) -> None:
        """Write a member to a new file; raises `JobError` for one that is damaged."""
        with _readable(), self.zip.open(member) as source, file.open("xb") as target:
            _copy(source, target, member.file_size)


@contextmanager
def opened_archive(file: Path, most: int) -> Iterator[Archive]:
    """A zip that is no trap; raises `JobError` for one that is. most: bytes that it may
    become.
    """
    with _readable():
        archive = zipfile.ZipFile(file)
    with archive:
        infos = archive.infolist()
        _require_safe(infos, most)
        files = sorted(filter(_is_wanted, infos), key=lambda each: each.filename)
        yield Archive(archive, tuple(files))


def base_name(member: zipfile.ZipInfo) -> str:
    """The last part of a member's name."""
    return PurePosixPath(member.filename).name


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    hidden = any(part.startswith(".") or part in SYSTEM for part in parts)
    return not member.is_dir() and not hidden


def _require_safe(infos: list[zipfile.ZipInfo], most: int) -> None:
    if len(infos) > MEMBERS:
        raise _refused(f"it has {len(infos)} members, at most {MEMBERS} are taken")
    total = sum(each.file_size for each in infos)
    if total > most:
        raise _refused(f"it would become {total} bytes, at most {most} are taken")
    names = {each.filename.casefold() for each in infos}
    if len(names) < len(infos):
        raise _refused("two of its members have the same name")
    for each in infos:
        _require_safe_member(each)


def _require_safe_member(member: zipfile.ZipInfo) -> None:
    if _leads_outside(member.filename):
        raise _refused("a name in it leads out of its folder")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise _refused("it holds a link or a device")
    if member.flag_bits & 1:
        raise _refused("it is encrypted")
    if member.compress_type not in METHODS:
        raise _refused("it is packed in another way than deflate")
    packed = max(member.compress_size, 1)
    if member.file_size > SMALL and member.file_size / packed > RATIO:
        raise _refused(f"a member would grow more than {RATIO} times")


def _leads_outside(name: str) -> bool:
    normal = name.replace("\\", "/")
    parts = PurePosixPath(normal).parts
    absolute = normal.startswith("/") or DRIVE.match(normal) is not None
    return absolute or ".." in parts or "\x00" in name


def _copy(source: IO[bytes], target: IO[bytes], most: int) -> None:
    """Copy what was announced, and not a byte more."""
    shutil.copyfileobj(source, target, CHUNK)
    if target.tell() > most:
        raise _refused("a member is larger than it says")


def _refused(reason: str) -> JobError:
    return JobError(Failure.UNSAFE_ARCHIVE, f"the zip is refused: {reason}")


@contextmanager
def _readable() -> Iterator[None]:
    """What Python says of a damaged zip, in one line."""
    try:
        yield
    except (OSError, JobError):
        raise
    except Exception as error:  # of many kinds, struct.error and zlib.error among them
        raise JobError(
            Failure.UNUSABLE_INPUT, "the zip is damaged; pack it again"
        ) from error
