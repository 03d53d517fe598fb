"""Reading chosen files out of a zip, tar or folder that nobody vouches for.

Nothing is ever extracted under a name from the archive: the caller gets the bytes of
plain files and decides where they go, so no member can climb out of a folder, be a link
or a device.
"""

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from trivox.datasets.names import one_file
from trivox.errors import DataError, FormatError, TrivoxError

MAX_MEMBERS = 1_000_000
MAX_BYTES = 4 * 2**40
Wanted = Callable[[PurePosixPath], bool]


@dataclass(frozen=True)
class ArchiveMember:
    """A plain file: its name inside, the bytes that the archive declares, and how to
    read them.
    """

    name: PurePosixPath
    size: int
    read: Callable[[], AbstractContextManager[IO[bytes]]]


Members = dict[PurePosixPath, ArchiveMember]


@contextmanager
def members(source: Path, wanted: Wanted) -> Iterator[Members]:
    """The plain files of a zip, tar (gz, bz2, xz) or folder that are `wanted`, in the
    order of the archive.

    Raises `FormatError` for what is no archive or is damaged (also while its members
    are read), and `DataError` if a wanted member is no plain file or its name points
    out of the archive or is there twice, or if the archive declares more than 4 TiB or
    a million members.
    """
    if not source.exists():
        raise FormatError(f"{source}: not found; check the path")
    with ExitStack() as stack:
        with _reading(source):
            files = stack.enter_context(_kind(source)(source, wanted))
            _require_distinct(source, files)
        yield files


@contextmanager
def _reading(source: Path) -> Iterator[None]:
    """Turn whatever the reader of a damaged archive raises into one line; errors of the
    file system pass.
    """
    try:
        yield
    except (TrivoxError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise FormatError(
            f"{source}: damaged, truncated or encrypted archive ({reason}); get it "
            "again"
        ) from error


_Kind = Callable[[Path, Wanted], AbstractContextManager[Members]]


def _kind(source: Path) -> _Kind:
    """How to read `source`, by its content and not by its name."""
    if source.is_dir():
        return _folder
    with source.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        return _zip
    if not _is_tar(source):
        what = "is neither a zip nor a tar archive" if start else "is empty"
        raise FormatError(
            f"{source}: {what}; give the archive as downloaded, or a folder"
        )
    return _tar


def _is_tar(source: Path) -> bool:
    """Whether the first member can be read; a damaged rest is found out later."""
    try:
        with tarfile.open(source, "r:*") as archive:
            return archive.next() is not None
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError):
        return False


@contextmanager
def _folder(source: Path, wanted: Wanted) -> Iterator[Members]:
    files: Members = {}
    for path in sorted(source.rglob("*")):
        name = PurePosixPath(path.relative_to(source).as_posix())
        if wanted(name) and path.is_file():
            files[name] = ArchiveMember(name, path.stat().st_size, partial(_file, path))
    yield files


@contextmanager
def _zip(source: Path, wanted: Wanted) -> Iterator[Members]:
    with zipfile.ZipFile(source) as archive:
        listing = archive.infolist()
        _require_size(source, len(listing), sum(info.file_size for info in listing))
        files: Members = {}
        for info in listing:
            name = _name(info.filename)
            if wanted(name) and not info.is_dir():
                kind = stat.S_IFMT(info.external_attr >> 16)
                _require_plain(source, info.filename, plain=kind in (0, stat.S_IFREG))
                read = partial(_zip_file, archive, info)
                _add(files, ArchiveMember(name, info.file_size, read), source)
        yield files


@contextmanager
def _tar(source: Path, wanted: Wanted) -> Iterator[Members]:
    with tarfile.open(source, "r:*") as archive:
        files: Members = {}
        total = 0
        for count, info in enumerate(archive, start=1):
            total += max(0, info.size)
            _require_size(source, count, total)
            name = _name(info.name)
            if wanted(name) and not info.isdir():
                _require_plain(source, info.name, plain=info.isreg())
                read = partial(_tar_file, archive, info)
                _add(files, ArchiveMember(name, info.size, read), source)
        _require_end(archive)
        yield files


def _require_end(archive: tarfile.TarFile) -> None:
    """A tar ends in a block of zeros; Python takes one for whole that was cut off, or
    whose next header is damaged.

    Reading on to the end of a compressed file checks its sum.
    """
    file = archive.fileobj
    assert file is not None
    file.seek(archive.offset)
    if any(file.read(tarfile.BLOCKSIZE) or b"\1"):
        raise tarfile.ReadError("its end is missing")
    while file.read(2**20):
        pass


@contextmanager
def _file(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        yield file


@contextmanager
def _zip_file(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    with _reading(Path(archive.filename or "")), archive.open(info) as file:
        yield file


@contextmanager
def _tar_file(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[IO[bytes]]:
    file = archive.extractfile(info)
    assert file is not None, "links and folders were refused"
    with _reading(Path(str(archive.name))), file:
        yield file


def _add(files: Members, member: ArchiveMember, source: Path) -> None:
    """Take a member; raises `DataError` if there is one of its name."""
    if member.name in files:
        raise DataError(
            f"{source}: member '{member.name}' is there twice; nothing was unpacked, "
            "get it again"
        )
    files[member.name] = member


def _require_distinct(source: Path, files: Members) -> None:
    """Raise `DataError` if two names are one file on some system."""
    seen: dict[str, PurePosixPath] = {}
    for name in files:
        first = seen.setdefault(one_file(str(name)), name)
        if first != name:
            raise DataError(
                f"{source}: members '{first}' and '{name}' are one file on some "
                "systems; rename one"
            )


def _name(text: str) -> PurePosixPath:
    return PurePosixPath(text.replace("\\", "/"))


def _require_plain(source: Path, name: str, *, plain: bool) -> None:
    path = _name(name)
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(
            f"{source}: member '{name}' points out of the archive; nothing was "
            "unpacked, get it elsewhere"
        )
    if not name.isprintable():
        raise DataError(
            f"{source}: member {name!a} has control characters in its name; nothing "
            "was unpacked, get it elsewhere"
        )
    if not plain:
        raise DataError(
            f"{source}: member '{name}' is a link or device, no file; nothing was "
            "unpacked"
        )


def _require_size(source: Path, count: int, size: int) -> None:
    if count > MAX_MEMBERS or size > MAX_BYTES:
        raise DataError(
            f"{source}: declares over {MAX_MEMBERS} members or "
            f"{MAX_BYTES / 2**40:.0f} TiB; this is no BraTS archive"
        )
