"""DICOM series: which images belong together, where each lies, and the volume that they
form.

The grid comes from ImagePositionPatient and ImageOrientationPatient alone, never from
SliceThickness, which is how thick a slice is and not how far the next one is away. A
tilted gantry gives a sheared affine, which is the truth.
"""

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError
from trivox.volumes.dicom_pixels import (
    Frame,
    decode,
    frames_of,
    is_dicom,
    quiet,
    rescaled,
    value_type,
)
from trivox.volumes.header import MAX_BYTES, Header, reading, require_size
from trivox.volumes.volume import Array, Volume, affine_from_spacing

_SAME_PLACE = 0.01
"""mm; positions in headers are rounded to about this."""


@dataclass(frozen=True)
class SeriesInfo:
    """One image series of a folder; `uid` is what `read_dicom(..., series=uid)` takes.

    uid: SeriesInstanceUID, or `unnamed-1`... for images whose UID is blank; size:
    (rows, columns) of most images.
    """

    uid: str
    modality: str
    description: str
    number: str
    images: int
    size: tuple[int, int]
    files: tuple[Path, ...]


@dataclass(frozen=True, eq=False)
class _Stack:
    """Frames along the normal, images at one position together, and the grid that they
    span.
    """

    places: list[list[Frame]]
    affine: NDArray[np.float64]

    @property
    def header(self) -> Header:
        frames = [frame for place in self.places for frame in place]
        rows, columns = frames[0].size
        return Header(
            (len(self.places), rows, columns), self.affine, 1, value_type(frames)
        )


def list_series(folder: Path) -> list[SeriesInfo]:
    """The image series below `folder`, largest first; localizers, SEG, RTSTRUCT and
    reports are left out.

    Files that are no DICOM are ignored; a damaged DICOM file raises `FormatError`
    naming it.
    """
    folder = Path(folder)
    with reading(folder), quiet():
        return sorted(
            (_info(uid, frames) for uid, frames in _series(_walk(folder)).items()),
            key=lambda s: -s.images,
        )


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
            stack, gaps = _stack(path, _select(path, series))
            _refuse_gaps(path, gaps, allowed=allow_gaps)
            require_size(path, stack.header, max_bytes=max_bytes)
            array = _pixels(path, stack)
        if gaps:
            warnings.warn(f"{path}: {gaps}; read as evenly spaced slices", stacklevel=3)
        return Volume(array[None], stack.affine)


def read_dicom_header(
    path: Path, *, series: str | None = None, allow_gaps: bool = False
) -> Header:
    """What `read_dicom` would return, without decoding any pixel; same errors."""
    path = Path(path)
    with reading(path), quiet():
        stack, gaps = _stack(path, _select(path, series))
        _refuse_gaps(path, gaps, allowed=allow_gaps)
        return stack.header


def header(path: Path) -> Header:
    """The header of a folder's only series."""
    return read_dicom_header(path)


def read(path: Path, *, max_bytes: int) -> Volume:
    """A folder's only series."""
    return read_dicom(path, max_bytes=max_bytes)


def _walk(folder: Path) -> list[Frame]:
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; check the path")
    files = [
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if not name.startswith(".")
    ]
    return [
        frame for file in sorted(files) if is_dicom(file) for frame in frames_of(file)
    ]


def _series(frames: Iterable[Frame]) -> dict[str, list[Frame]]:
    result: dict[str, list[Frame]] = {}
    for frame in frames:
        result.setdefault(frame.series, []).append(frame)
    for number, group in enumerate(_alike(result.pop("", [])), start=1):
        result[f"unnamed-{number}"] = group
    return result


def _alike(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Group frames by size, pixel spacing and orientation, largest group first."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if _same_plane(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return sorted(groups, key=len, reverse=True)


def _same_plane(one: Frame, other: Frame) -> bool:
    if one.size != other.size or (one.orientation is None) != (
        other.orientation is None
    ):
        return False
    turned = 0.0
    if one.orientation is not None and other.orientation is not None:
        turned = float(np.abs(one.orientation - other.orientation).max())
    return turned <= 1e-3 and np.allclose(one.spacing, other.spacing, rtol=1e-3)


def _info(uid: str, frames: list[Frame]) -> SeriesInfo:
    first = _alike(frames)[0][0]
    files = tuple(dict.fromkeys(frame.path for frame in frames))
    return SeriesInfo(
        uid,
        first.modality,
        first.description,
        first.number,
        len(frames),
        first.size,
        files,
    )


def _select(path: Path, series: str | None) -> list[Frame]:
    if not path.is_dir():
        return _around(path)
    found = _series(_walk(path))
    if not found:
        raise FormatError(
            f"{path}: no DICOM images in this folder (localizers, SEG, RTSTRUCT and reports do not count)"
        )
    listed = sorted(
        (_info(uid, frames) for uid, frames in found.items()),
        key=lambda info: -info.images,
    )
    wanted = [
        info for info in listed if series is None or series in (info.uid, info.number)
    ]
    if len(wanted) == 1:
        return found[wanted[0].uid]
    described = "; ".join(
        f"{s.uid} ({s.modality} {s.number} '{s.description}', {s.images} images)".replace(
            " ''", ""
        )
        for s in listed[:8]
    )
    problem = (
        f"{len(listed)} series"
        if series is None
        else f"{len(wanted)} series called '{series}'"
    )
    raise FormatError(
        f"{path}: {problem} in this folder; choose one by its UID with read_dicom(..., series=...), or give "
        f"each its own folder; found {described}{'; ...' if len(listed) > 8 else ''}"
    )


def _around(path: Path) -> list[Frame]:
    """The frames of a file and, if it is one slice of a series, of the files beside it
    that belong to the series.
    """
    frames = frames_of(path)
    if not frames:
        raise FormatError(
            f"{path}: not an image (a localizer, SEG, RTSTRUCT or report); name an image series"
        )
    first = frames[0]
    if len(frames) > 1 or first.position is None:
        return frames
    others = sorted(
        file
        for file in path.parent.iterdir()
        if file != path and file.is_file() and is_dicom(file)
    )
    beside = [
        frame
        for file in others
        for frame in frames_of(file)
        if frame.series == first.series
    ]
    return [*frames, *(f for f in beside if first.series or _same_plane(first, f))]


def _stack(path: Path, frames: list[Frame]) -> tuple[_Stack, str]:
    """Order frames in space; also says which positions are missing, if any."""
    most, *others = _alike(frames)
    if others:
        strange = [frame.path.name for group in others for frame in group]
        raise GeometryError(
            f"{path}: {len(most)} images of {most[0].size[0]}x{most[0].size[1]} are mixed with {len(strange)} of "
            f"another size, pixel spacing or orientation ({', '.join(strange[:5])}); move those to another folder"
        )
    first = most[0]
    if (
        first.position is None
        or first.orientation is None
        or any(frame.position is None for frame in most)
    ):
        if len(most) == 1:
            return _Stack(
                [most], affine_from_spacing((first.depth, *first.spacing))
            ), ""
        raise FormatError(
            f"{path}: images without ImagePositionPatient or ImageOrientationPatient cannot be ordered"
        )
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    heights, places = _places(most, normal)
    points = np.array([place[0].position for place in places])
    _require_line(path, points, heights, places)
    step = (
        (points[-1] - points[0]) / max(len(places) - 1, 1)
        if len(places) > 1
        else normal * first.depth
    )
    return _Stack(places, _grid(first, points[0], step)), _gaps(heights)


def _places(
    frames: list[Frame], normal: NDArray[np.float64]
) -> tuple[NDArray[np.float64], list[list[Frame]]]:
    """Height along the normal, ascending, and the images at each; those within
    `_SAME_PLACE` are one place.
    """
    heights = np.array(
        [frame.position @ normal for frame in frames if frame.position is not None]
    )
    order = np.argsort(heights, kind="stable")
    number = np.concatenate([[0], np.cumsum(np.diff(heights[order]) > _SAME_PLACE)])
    places = [
        [frames[i] for _, i in group]
        for _, group in groupby(zip(number, order, strict=True), key=lambda p: p[0])
    ]
    return heights[order][np.unique(number, return_index=True)[1]], places


def _require_line(
    path: Path,
    points: NDArray[np.float64],
    heights: NDArray[np.float64],
    places: list[list[Frame]],
) -> None:
    """The corners of all images must lie on one straight line, else the series joins
    several fields of view.
    """
    tolerance = 0.1 * min(places[0][0].spacing) + _SAME_PLACE
    run = (
        np.zeros(1)
        if len(points) == 1
        else (heights - heights[0]) / (heights[-1] - heights[0])
    )
    ideal = points[0] + run[:, None] * (points[-1] - points[0])
    off = np.array(
        [
            max(
                float(np.abs(frame.position - at).max())
                for frame in place
                if frame.position is not None
            )
            for place, at in zip(places, ideal, strict=True)
        ]
    )
    if off.max() > tolerance:
        name = places[int(off.argmax())][0].path.name
        raise GeometryError(
            f"{path}: images are shifted sideways against each other by up to {off.max():.3g} mm ({name}); the series "
            "joins several fields of view or volumes: move them to separate folders"
        )


def _gaps(heights: NDArray[np.float64]) -> str:
    """Missing positions in words, empty if slices are even within 1 % (or the rounding
    of positions).
    """
    if len(heights) < 3:
        return ""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    wide = np.flatnonzero(np.abs(steps - usual) > max(0.01 * usual, _SAME_PLACE))
    if not wide.size:
        return ""
    missing: list[float] = []
    for i in wide:
        count = max(round(float(steps[i]) / usual), 1)
        missing.extend(heights[i] + steps[i] * k / count for k in range(1, count))
    shown = ", ".join(f"{height:.2f}" for height in missing[:8]) + (
        ", ..." if len(missing) > 8 else ""
    )
    where = (
        f"slices are missing at {shown} mm along the normal"
        if missing
        else "slices lie at uneven distances"
    )
    return f"{where} (distances {steps.min():.3f} to {steps.max():.3f} mm, usual {usual:.3f} mm)"


def _refuse_gaps(path: Path, gaps: str, *, allowed: bool) -> None:
    if gaps and not allowed:
        raise GeometryError(
            f"{path}: {gaps}; complete the series, or read it with read_dicom(..., allow_gaps=True)"
        )


def _grid(
    first: Frame, origin: NDArray[np.float64], step: NDArray[np.float64]
) -> NDArray[np.float64]:
    assert first.orientation is not None
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * first.spacing[1]
    lps[:3, 1] = first.orientation[3:] * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = origin
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps)


def _pixels(path: Path, stack: _Stack) -> Array:
    """All planes `(z, y, x)`, rescaled; a second image at a position must equal the
    first.
    """
    described = stack.header
    array = np.empty(described.shape, dtype=described.dtype)
    height = {
        (f.path, f.index): z for z, place in enumerate(stack.places) for f in place
    }
    frames = sorted(
        (f for place in stack.places for f in place), key=lambda f: (f.path, f.index)
    )
    filled = np.zeros(len(stack.places), dtype=bool)
    for file, group in groupby(frames, key=lambda f: f.path):
        members = list(group)
        with reading(file):
            for frame, stored in zip(
                members, decode(file, [f.index for f in members]), strict=True
            ):
                z = height[file, frame.index]
                plane = rescaled(stored, frame, array.dtype)
                if filled[z] and not np.array_equal(array[z], plane):
                    raise GeometryError(_different(path, stack.places, z))
                array[z], filled[z] = plane, True
    return array


def _different(path: Path, places: list[list[Frame]], z: int) -> str:
    names = [
        name
        for name in places[z][0].marks
        if all(
            len({f.marks.get(name) for f in place}) == len(place) for place in places
        )
    ]
    values = (
        sorted({frame.marks.get(names[0], "?") for place in places for frame in place})
        if names
        else []
    )
    told = (
        f"told apart by {names[0]} ({', '.join(values[:6])}): put each value's files"
        if names
        else "put each volume"
    )
    at = ", ".join(frame.path.name for frame in places[z][:3])
    return f"{path}: {len(places[z])} different images lie at one position ({at}), {told} into a folder of its own"
