"""DICOM series read as volumes."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from trivox.errors import GeometryError
from trivox.volumes.choice import NO_CHOICE, SeriesChoice
from trivox.volumes.dicom.files import quiet
from trivox.volumes.dicom.frames import Frame
from trivox.volumes.dicom.native import NativeDecoder, native_decoder
from trivox.volumes.dicom.pixels import decode, rescaled
from trivox.volumes.dicom.series import (
    SeriesInfo,
    choose,
    contents_of,
    described,
    series_of,
)
from trivox.volumes.dicom.stack import Stack, stack_of
from trivox.volumes.header import Header, reading, require_size
from trivox.volumes.volume import Array, Volume


def list_series(folder: Path) -> list[SeriesInfo]:
    """The image series below `folder`, largest first; localizers, SEG, RTSTRUCT,
    reports and images that cannot be part of a volume are left out.

    Files that are no DICOM are ignored; a damaged DICOM file raises `FormatError`
    naming it.
    """
    folder = Path(folder)
    with reading(folder), quiet():
        return described(series_of(contents_of(folder).frames))


@dataclass(frozen=True)
class DicomSeries:
    """How one series is read: of a folder and its subfolders, or the one that a file
    belongs to.
    """

    choice: SeriesChoice = NO_CHOICE

    def header(self, path: Path) -> Header:
        """What `read` would return, without decoding any pixel; same errors but for
        those of the pixels.
        """
        with reading(path), quiet():
            return self.stack(path).header

    def read(self, path: Path, *, max_bytes: int) -> Volume:
        """The array `(1, z, y, x)` is int16 (int32) for whole-numbered rescaling with
        slope 1, else float32; PET is in SUV by body weight where its headers allow it.

        Raises `FormatError` (files, choice of series) and `GeometryError` (uneven or
        missing slices, mixed images, several different images at one position).
        """
        with reading(path), quiet(), native_decoder() as native:
            stack = self.stack(path)
            header = stack.header
            require_size(path, header, max_bytes=max_bytes)
            array = _pixels(path, stack, native)
        return Volume(array[None], stack.affine, header.remarks)

    def stack(self, path: Path) -> Stack:
        """The images in order and their grid; errors as `header`, but for those that
        only `trivox.volumes.header.reading` turns into lines.
        """
        chosen = choose(path, self.choice.series)
        return stack_of(path, chosen, tolerance=self.choice.slice_tolerance)


def _pixels(path: Path, stack: Stack, native: NativeDecoder) -> Array:
    """All planes `(z, y, x)`, rescaled; a second image at a position must equal the
    first.
    """
    header = stack.header
    array = np.empty(header.shape, dtype=header.dtype)
    height_of: dict[tuple[Path, int], int] = {}
    for z, place in enumerate(stack.places):
        height_of |= {(frame.path, frame.index): z for frame in place}
    filled = np.zeros(len(stack.places), dtype=bool)
    frames = sorted(stack.frames, key=lambda frame: (frame.path, frame.index))
    for file, group in groupby(frames, key=lambda frame: frame.path):
        for frame, plane in _planes_of(file, group, array.dtype, native):
            z = height_of[file, frame.index]
            if filled[z] and not np.array_equal(array[z], plane):
                raise GeometryError(_different(path, stack, z))
            array[z] = plane
            filled[z] = True
    return array


def _planes_of(
    file: Path,
    group: Iterable[Frame],
    kind: np.dtype[np.generic],
    native: NativeDecoder,
) -> Iterable[tuple[Frame, Array]]:
    """The frames of a file and their rescaled planes."""
    frames = list(group)
    indices = [frame.index for frame in frames]
    with reading(file):
        planes = decode(file, indices, native=native)
        for frame, stored in zip(frames, planes, strict=True):
            yield frame, rescaled(stored, frame, kind)


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
