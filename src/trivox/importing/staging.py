"""The folder that an import writes: made beside its final place, renamed at the end,
taken up again when interrupted.
"""

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NotRequired

from typing_extensions import TypedDict

from trivox.errors import DataError, ResourceError
from trivox.files import read_json, remove_leftovers, write_json
from trivox.locks import claimed
from trivox.outputs import Kind, is_there, object_with, require_folder_place
from trivox.schema import stamped

STAMP = "import.json"
"""File in the folder that says what was imported, how."""
IMPORT = Kind("import", object_with("format", "source", "files", "bytes"))


class ImportFile(TypedDict):
    """What import.json says beside its version: the form that the cases have here, and
    what was imported; modified: nanoseconds, of the newest file; listing: a hash over
    names, sizes and times; channels, labels: of class folders, as they are named here.
    Files of 0.1.0 say less.
    """

    format: str
    source: str
    files: int
    bytes: int
    modified: int
    listing: str
    channels: NotRequired[list[str]]
    labels: NotRequired[dict[str, int]]


@contextmanager
def sole_import(out: Path) -> Iterator[None]:
    """Keep others from importing to `out` meanwhile; raises `BusyError` where one
    does.
    """
    with claimed(out.absolute().parent, "import", [out.name]):
        yield


def is_done(out: Path, stamp: ImportFile, source: Path) -> bool:
    """Whether `out` is the finished import of the same source; raises `DataError` if it
    is anything else.
    """
    require_folder_place(out)
    if out.is_symlink():
        raise DataError(f"{out}: is a link; name the folder itself")
    if source.is_dir() and out.absolute().is_relative_to(source.absolute()):
        raise DataError(
            f"{out}: lies inside {source}, which is imported; choose another --out"
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if (out / STAMP).is_file() and _is_of(out / STAMP, stamp):
        return True
    raise DataError(
        f"{out}: exists and is no import of {source} as it is now, in this form; "
        "choose another --out"
    )


def begin(out: Path, stamp: ImportFile) -> Path:
    """The folder to work in: that of an interrupted import of the same source, else a
    new one.
    """
    folder = out.absolute().with_name(f".{out.name}.partial")
    file = folder / STAMP
    _require_import(folder)
    if file.is_file() and not _is_of(file, stamp):
        shutil.rmtree(folder)
    for place in (folder, *folder.rglob("*/")):
        remove_leftovers(place)
    write_json(file, stamped(stamp, None))
    return folder


def _is_of(file: Path, stamp: ImportFile) -> bool:
    """Whether an import is of the same source in the same form; 0.1.0 wrote down
    less.
    """
    content = read_json(file)
    if not isinstance(content, dict) or "source" not in content:
        return False
    return {**content, **stamp} == {**stamp, **content}


def _require_import(folder: Path) -> None:
    """Raise `DataError` for a folder in the way that no import made."""
    begun = (folder / STAMP).is_file() and IMPORT.wrote(folder / STAMP)
    empty = folder.is_dir() and not any(folder.iterdir())
    if is_there(folder) and not begun and not empty:
        raise DataError(f"{folder}: is in the way of the import; move it away")


def listing_of(files: Iterable[tuple[str, int, int]]) -> str:
    """A hash over names, sizes and times of files: one that was moved to another class
    has changed as well.
    """
    lines = sorted(f"{name}\0{size}\0{modified}" for name, size, modified in files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def require_space(folder: Path, needed: int, *, out: Path) -> None:
    """Raise `ResourceError` unless `needed` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{out}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; make room "
            "or choose another --out"
        )
