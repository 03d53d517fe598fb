"""Which DICOM images of a folder belong together, and which series is meant."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trivox.errors import FormatError
from trivox.volumes.dicom.frames import Frame, frames_of, is_dicom

_LISTED = 8
"""Series that an error names."""
MOST_FILES = 100_000
"""Files below a folder that are looked at; exams have at most some ten thousand."""


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

    def __str__(self) -> str:
        title = f" '{self.description}'" if self.description else ""
        return (
            f"{self.uid} ({self.modality} {self.number}{title}, {self.images} images)"
        )


def series_of(folder: Path) -> dict[str, list[Frame]]:
    """The frames of each series below a folder by UID; those whose UID is blank are
    grouped by size, spacing and orientation as `unnamed-1`...
    """
    series: dict[str, list[Frame]] = {}
    for frame in _frames_below(folder):
        series.setdefault(frame.series, []).append(frame)
    for number, group in enumerate(alike(series.pop("", [])), start=1):
        series[f"unnamed-{number}"] = group
    return series


def described(series: Mapping[str, list[Frame]]) -> list[SeriesInfo]:
    """What a person needs to choose among series, largest first."""
    listed = [_info(uid, frames) for uid, frames in series.items()]
    return sorted(listed, key=lambda info: -info.images)


def choose(path: Path, wanted: str | None) -> list[Frame]:
    """The frames of the only series of a folder, of the `wanted` one (its UID or
    number), or of the series that a file belongs to.

    Raises `FormatError` that lists the series unless exactly one is meant.
    """
    if not path.is_dir():
        return _series_around(path)
    series = series_of(path)
    if not series:
        raise FormatError(
            f"{path}: no DICOM images in this folder "
            "(localizers, SEG, RTSTRUCT and reports do not count)"
        )
    listed = described(series)
    meant = [info for info in listed if wanted in (None, info.uid, info.number)]
    if len(meant) == 1:
        return series[meant[0].uid]
    if wanted is None:
        problem = f"{len(listed)} series"
    else:
        problem = f"{len(meant)} series called '{wanted}'"
    names = "; ".join(str(info) for info in listed[:_LISTED])
    more = "; ..." if len(listed) > _LISTED else ""
    raise FormatError(
        f"{path}: {problem} in this folder; choose one by its UID with "
        "read_dicom(..., series=...), or give each its own folder; "
        f"found {names}{more}"
    )


def alike(frames: Iterable[Frame]) -> list[list[Frame]]:
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
    if one.size != other.size:
        return False
    if not np.allclose(one.spacing, other.spacing, rtol=1e-3):
        return False
    if one.orientation is None or other.orientation is None:
        return one.orientation is other.orientation
    return float(np.abs(one.orientation - other.orientation).max()) <= 1e-3


def _info(uid: str, frames: list[Frame]) -> SeriesInfo:
    first = alike(frames)[0][0]
    return SeriesInfo(
        uid,
        first.modality,
        first.description,
        first.number,
        images=len(frames),
        size=first.size,
        files=tuple(dict.fromkeys(frame.path for frame in frames)),
    )


def _frames_below(folder: Path) -> list[Frame]:
    if not folder.is_dir():
        raise FormatError(f"{folder}: no such folder; check the path")
    files: list[Path] = []
    for root, _, names in os.walk(folder):
        files += [Path(root, name) for name in names if not name.startswith(".")]
        if len(files) > MOST_FILES:
            raise FormatError(
                f"{folder}: more than {MOST_FILES} files below this folder; give the "
                "folder of one exam"
            )
    frames: list[Frame] = []
    for file in sorted(files):
        if is_dicom(file):
            frames += frames_of(file)
    return frames


def _series_around(path: Path) -> list[Frame]:
    """The frames of a file and, if it is one slice of a series, of the files in its
    folder that belong to the series.
    """
    frames = frames_of(path)
    if not frames:
        raise FormatError(
            f"{path}: not an image (a localizer, SEG, RTSTRUCT or report); "
            "name an image series"
        )
    first = frames[0]
    if len(frames) > 1 or first.position is None:
        return frames
    for file in sorted(path.parent.iterdir()):
        if file == path or not file.is_file() or not is_dicom(file):
            continue
        for frame in frames_of(file):
            in_series = frame.series == first.series
            if in_series and (first.series or _same_plane(first, frame)):
                frames.append(frame)
    return frames
