"""The folder that an import writes: made beside its final place, renamed at the end,
taken up again when interrupted.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trivox.errors import DataError, ResourceError
from trivox.files import read_json, remove_leftovers, write_json
from trivox.locks import claimed

STAMP = "import.json"
"""File in the folder that says what was imported, how."""


@contextmanager
def sole_import(out: Path) -> Iterator[None]:
    """Keep others from importing to `out` meanwhile; raises `BusyError` where one
    does.
    """
    with claimed(out.absolute().parent, "import", [out.name]):
        yield


def is_done(out: Path, stamp: dict[str, object], source: Path) -> bool:
    """Whether `out` is the finished import of the same source; raises `DataError` if it
    is anything else.
    """
    if source.is_dir() and out.absolute().is_relative_to(source.absolute()):
        raise DataError(
            f"{out}: lies inside {source}, which is imported; choose another --out"
        )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if (out / STAMP).is_file() and read_json(out / STAMP) == stamp:
        return True
    raise DataError(
        f"{out}: exists and is no import of {source} as it is now, in this form; "
        "choose another --out"
    )


def begin(out: Path, stamp: dict[str, object]) -> Path:
    """The folder to work in: that of an interrupted import of the same source, else a
    new one.
    """
    folder = out.absolute().with_name(f".{out.name}.partial")
    file = folder / STAMP
    if folder.exists() and not (file.is_file() and read_json(file) == stamp):
        shutil.rmtree(folder)
    for place in (folder, *folder.rglob("*/")):
        remove_leftovers(place)
    write_json(file, stamp)
    return folder


def require_space(folder: Path, needed: int, *, out: Path) -> None:
    """Raise `ResourceError` unless `needed` bytes are free where `folder` lies."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ResourceError(
            f"{out}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free; make room "
            "or choose another --out"
        )
