"""DICOM series read as volumes."""

import warnings
from itertools import groupby
from pathlib import Path

import numpy as np

from trivox.errors import GeometryError
from trivox.volumes.dicom.frames import Frame, quiet
from trivox.volumes.dicom.pixels import decode, rescaled
from trivox.volumes.dicom.series import SeriesInfo, choose, described, series_of
from trivox.volumes.dicom.stack import Stack, stack_of
from trivox.volumes.header import MAX_BYTES, Header, reading, require_size
from trivox.volumes.volume import Array, Volume


def list_series(folder: Path) -> list[SeriesInfo]:
    """The image series below `folder`, largest first; localizers, SEG, RTSTRUCT and
    reports are left out.

    Files that are no DICOM are ignored; a damaged DICOM file raises `FormatError`
    naming it.
    """
    folder = Path(folder)
    with reading(folder), quiet():
        return described(series_of(folder))


def read_dicom(
    path: Path,
    *,
    series: str | None = None,
    allow_gaps: bool = False,
    max_bytes: int = MAX_BYTES,
) -> Volume:
    """Read one series from a folder (and its subfolders), or the series that a `.dcm`
    file belongs to.

    series: SeriesInstanceUID or SeriesNumber, needed if there are several. allow_gaps:
    read a series with missing slices as if they were evenly spaced, with a warning. The
    array `(1, z, y, x)` is int16 (int32) for whole-numbered rescaling with slope 1,
    else float32. Raises `FormatError` (files, choice of series) and `GeometryError`
    (gaps, mixed images, several different images at one position).
    """
    path = Path(path)
    with reading(path):
        with quiet():
            stack = _stack(path, series, allow_gaps=allow_gaps)
            require_size(path, stack.header, max_bytes=max_bytes)
            array = _pixels(path, stack)
        if stack.gaps:
            warnings.warn(
                f"{path}: {stack.gaps}; read as evenly spaced slices", stacklevel=3
            )
        return Volume(array[None], stack.affine, stack.header.remarks)


def read_dicom_header(
    path: Path, *, series: str | None = None, allow_gaps: bool = False
) -> Header:
    """What `read_dicom` would return, without decoding any pixel; same errors."""
    path = Path(path)
    with reading(path), quiet():
        return _stack(path, series, allow_gaps=allow_gaps).header


def header(path: Path) -> Header:
    """The header of a folder's only series."""
    return read_dicom_header(path)


def read(path: Path, *, max_bytes: int) -> Volume:
    """A folder's only series."""
    return read_dicom(path, max_bytes=max_bytes)


def _stack(path: Path, series: str | None, *, allow_gaps: bool) -> Stack:
    stack = stack_of(path, choose(path, series))
    if stack.gaps and not allow_gaps:
        raise GeometryError(
            f"{path}: {stack.gaps}; complete the series, or read it with "
            "read_dicom(..., allow_gaps=True)"
        )
    return stack


def _pixels(path: Path, stack: Stack) -> Array:
    """All planes `(z, y, x)`, rescaled; a second image at a position must equal the
    first.
    """
    described = stack.header
    array = np.empty(described.shape, dtype=described.dtype)
    height_of: dict[tuple[Path, int], int] = {}
    for z, place in enumerate(stack.places):
        height_of |= {(frame.path, frame.index): z for frame in place}
    filled = np.zeros(len(stack.places), dtype=bool)
    frames = sorted(stack.frames, key=lambda frame: (frame.path, frame.index))
    for file, group in groupby(frames, key=lambda frame: frame.path):
        in_file = list(group)
        with reading(file):
            planes = decode(file, [frame.index for frame in in_file])
            for frame, stored in zip(in_file, planes, strict=True):
                z = height_of[file, frame.index]
                plane = rescaled(stored, frame, array.dtype)
                if filled[z] and not np.array_equal(array[z], plane):
                    raise GeometryError(_different(path, stack, z))
                array[z] = plane
                filled[z] = True
    return array


def _different(path: Path, stack: Stack, z: int) -> str:
    """That several different images lie at a place, and what tells them apart."""
    place = stack.places[z]
    names = [name for name in place[0].marks if _tells_apart(name, stack.places)]
    advice = "put each volume"
    if names:
        values = sorted({frame.marks.get(names[0], "?") for frame in stack.frames})
        shown = ", ".join(values[:6])
        advice = f"told apart by {names[0]} ({shown}): put each value's files"
    files = ", ".join(frame.path.name for frame in place[:3])
    return (
        f"{path}: {len(place)} different images lie at one position ({files}), "
        f"{advice} into a folder of its own"
    )


def _tells_apart(name: str, places: list[list[Frame]]) -> bool:
    """Whether an attribute has as many values as there are images, at every place."""
    for place in places:
        values = {frame.marks.get(name) for frame in place}
        if len(values) != len(place):
            return False
    return True
