"""The scans of the data folder, by the paths under which jobs may name them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from trivox.service.serve.api.paths import nothing_there, opened_below, parts_of
from trivox.service.serve.work.staging import is_image

MOST = 10_000
"""Scans that are listed."""
LOOKED_AT = 100_000
"""Files that are looked at for them."""
DICOM = ".dcm"


def scans_in(root: Path | None) -> list[str]:
    """Paths of images, and of folders of DICOM files, relative to `root`, sorted."""
    if root is None:
        return []
    scans: list[str] = []
    looked_at = 0
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith("."))
        scans += _scans_of(Path(folder).relative_to(root), files)
        looked_at += len(files)
        if len(scans) >= MOST or looked_at >= LOOKED_AT:
            break
    return sorted(scans)[:MOST]


def _scans_of(folder: Path, files: list[str]) -> Iterator[str]:
    shown = [name for name in files if not name.startswith(".")]
    images = [name for name in shown if is_image(name)]
    if not images and any(name.lower().endswith(DICOM) for name in shown):
        yield folder.as_posix()
    for name in images:
        yield (folder / name).as_posix()


def opened_image(root: Path | None, path: str) -> tuple[IO[bytes], int]:
    """An image of the data folder opened, and its size in bytes; raises `ProblemError`
    where there is none, or where it is a folder.
    """
    if root is None:
        raise nothing_there()
    try:
        with opened_below(root, parts_of(path)) as opened:
            status = os.fstat(opened)
            if not stat.S_ISREG(status.st_mode):
                raise nothing_there()
            return os.fdopen(os.dup(opened), "rb"), status.st_size
    except OSError as error:
        raise nothing_there() from error
