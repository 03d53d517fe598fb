"""Which DICOM images of a folder belong together, and which series is meant."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from trivox.config.choices import SeriesRule
from trivox.errors import FormatError
from trivox.volumes.dicom.files import DIRECTORY
from trivox.volumes.dicom.frames import LOCALIZER, Aside, Contents, Frame, frames_of
from trivox.volumes.dicom.places import (
    alike,
    in_places,
    is_axial,
    is_placed,
    same_plane,
)
from trivox.volumes.dicom.signature import SUFFIXES, is_dicom
from trivox.volumes.dicom.steps import usual_step
from trivox.volumes.placeholders import require_fetched

_LISTED = 8
"""Series that an error names."""
MOST_FILES = 100_000
"""Files below a folder that are looked at; exams have at most some ten thousand."""
_UNSAID = (LOCALIZER, DIRECTORY)
"""What lies beside most series and needs no word."""


@dataclass(frozen=True)
class SeriesInfo:
    """One image series of a folder; `uid` is what `SeriesChoice(series=uid)` takes.

    uid: SeriesInstanceUID, or `unnamed-1`... for images whose UID is blank; size:
    (rows, columns) of most images; spacing: mm between slices, rows and columns, the
    first 0 where there is one slice or positions are not known; axial: whether most
    images lie across the body.
    """

    uid: str
    modality: str
    description: str
    number: str
    images: int
    size: tuple[int, int]
    files: tuple[Path, ...]
    spacing: tuple[float, float, float] = (0.0, 0.0, 0.0)
    axial: bool = False

    def __str__(self) -> str:
        title = f" '{self.description}'" if self.description else ""
        sizes = " x ".join(f"{size:.3g}" for size in self.spacing if size)
        return (
            f"{self.number or '-'} ({self.modality}{title}, {self.images} images, "
            f"{sizes} mm, {self.uid})"
        )


@dataclass(frozen=True)
class Chosen:
    """The frames of one series, and what has to be said of what lies beside it."""

    frames: list[Frame]
    remarks: tuple[str, ...] = ()


def contents_of(folder: Path) -> Contents:
    """What all DICOM files below a folder hold."""
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
    contents = Contents()
    for file in sorted(files):
        if is_dicom(file):
            contents.add(frames_of(file))
        elif file.suffix.lower() in SUFFIXES:
            contents.add(_no_dicom(file))
    return contents


def _no_dicom(file: Path) -> Aside:
    """A file that is called as slices are and is none: cut off, or never fetched."""
    try:
        require_fetched(file)
        problem = f"{file}: is no DICOM file, whatever its name says; copy it again"
    except FormatError as error:
        problem = str(error)
    return Aside(file, "", "damaged file", f"{problem}, or remove it")


def series_of(frames: Sequence[Frame]) -> dict[str, list[Frame]]:
    """The frames of each series by UID; those whose UID is blank are grouped by size,
    spacing and orientation as `unnamed-1`...
    """
    series: dict[str, list[Frame]] = {}
    for frame in frames:
        series.setdefault(frame.series, []).append(frame)
    for number, group in enumerate(alike(series.pop("", [])), start=1):
        series[f"unnamed-{number}"] = group
    return series


def described(series: Mapping[str, list[Frame]]) -> list[SeriesInfo]:
    """What a person needs to choose among series, largest first."""
    listed = [_info(uid, frames) for uid, frames in series.items()]
    return sorted(listed, key=lambda info: -info.images)


def choose(path: Path, wanted: str | None) -> Chosen:
    """The only series of a folder, the `wanted` one (its UID, its number, or rules), or
    the series that a file belongs to.

    Raises `FormatError` that lists the series unless exactly one is meant, and for
    images of that series that cannot be used.
    """
    if not path.is_dir():
        return _around(path)
    contents = contents_of(path)
    series = series_of(contents.frames)
    if not series:
        raise FormatError(_nothing(path, contents.asides))
    series, pictures = _without_pictures(series)
    listed = described(series)
    meant = _meant(listed, wanted, path, contents.frames)
    if len(meant) != 1:
        raise FormatError(_unclear(path, listed, meant, wanted))
    uid = meant[0].uid
    remarks = _remarks(series[uid], contents.asides, pictures)
    if _rules(wanted) and len(listed) > 1:
        remarks = (f"series: {wanted} of {len(listed)} is {meant[0]}", *remarks)
    return Chosen(series[uid], remarks)


def _without_pictures(
    series: dict[str, list[Frame]],
) -> tuple[dict[str, list[Frame]], int]:
    """Series without those that cannot be volumes, since their images say not where
    they lie; how many images these are. All series where none can be one.
    """
    volumes = {uid: frames for uid, frames in series.items() if is_placed(frames)}
    if not volumes or len(volumes) == len(series):
        return series, 0
    pictures = [len(frames) for uid, frames in series.items() if uid not in volumes]
    return volumes, sum(pictures)


def _remarks(
    frames: Sequence[Frame], asides: Sequence[Aside], pictures: int
) -> tuple[str, ...]:
    """What was left aside beside a series; raises `FormatError` for what belongs to it
    and cannot be used.
    """
    folders = {frame.path.parent for frame in frames}
    for aside in asides:
        near = bool(aside.series) or aside.path.parent in folders
        # a file that ends too early may hold but the beginning of its UID
        if aside.problem and near and frames[0].series.startswith(aside.series):
            raise FormatError(aside.problem)
    counts = Counter(aside.what for aside in asides if aside.what not in _UNSAID)
    if pictures:
        counts["image without position"] += pictures
    if not counts:
        return ()
    names = ", ".join(f"{count} x {what}" for what, count in sorted(counts.items()))
    return (f"beside the series: {names} left aside",)


def _rules(wanted: str | None) -> list[str]:
    """The rules that a choice consists of; none if it is a UID or a number."""
    words = (wanted or "").split(",")
    return words if set(words) <= set(get_args(SeriesRule)) else []


def _meant(
    listed: list[SeriesInfo], wanted: str | None, path: Path, frames: Sequence[Frame]
) -> list[SeriesInfo]:
    rules = _rules(wanted)
    if not rules:
        return [info for info in listed if wanted in (None, info.uid, info.number)]
    patients = {frame.patient for frame in frames}
    if len(patients) > 1:
        raise FormatError(
            f"{path}: --series {wanted} would choose among {len(patients)} patients; "
            "give each patient a folder of its own"
        )
    for rule in rules:
        listed = _NARROWED[rule](listed)
    return listed


def _largest(listed: list[SeriesInfo]) -> list[SeriesInfo]:
    most = max((info.images for info in listed), default=0)
    return [info for info in listed if info.images == most]


def _thinnest(listed: list[SeriesInfo]) -> list[SeriesInfo]:
    distances = [info.spacing[0] for info in listed if info.spacing[0]]
    least = min(distances, default=0.0)
    return [info for info in listed if abs(info.spacing[0] - least) < 1e-3]


def _axial(listed: list[SeriesInfo]) -> list[SeriesInfo]:
    return [info for info in listed if info.axial]


_NARROWED: dict[str, Callable[[list[SeriesInfo]], list[SeriesInfo]]] = {
    "largest": _largest,
    "thinnest": _thinnest,
    "axial": _axial,
}


def _unclear(
    path: Path, listed: list[SeriesInfo], meant: list[SeriesInfo], wanted: str | None
) -> str:
    problem = f"{len(meant)} series are meant by --series {wanted}"
    if wanted is None:
        problem = f"{len(listed)} series in this folder"
    names = "; ".join(str(info) for info in listed[:_LISTED])
    more = "; ..." if len(listed) > _LISTED else ""
    rules = "|".join(get_args(SeriesRule))
    return (
        f"{path}: {problem}; choose one with --series NUMBER, UID or {rules}, or give "
        f"each a folder of its own: {names}{more}"
    )


def _nothing(path: Path, asides: Sequence[Aside]) -> str:
    """Why a folder holds no image series."""
    problems = [aside.problem for aside in asides if aside.problem]
    if problems:
        return problems[0]
    counts = Counter(aside.what for aside in asides)
    names = ", ".join(f"{count} x {what}" for what, count in sorted(counts.items()))
    only = f", only {names}" if names else ""
    return (
        f"{path}: no DICOM images in this folder{only}; localizers, SEG, RTSTRUCT and "
        "reports do not count"
    )


def _info(uid: str, frames: list[Frame]) -> SeriesInfo:
    usual = alike(frames)[0]
    first = usual[0]
    distance = 0.0
    if is_placed(usual):
        heights, _ = in_places(usual)
        distance = usual_step(heights)
    return SeriesInfo(
        uid,
        first.modality,
        first.description,
        first.number,
        images=len(frames),
        size=first.size,
        files=tuple(dict.fromkeys(frame.path for frame in frames)),
        spacing=(distance, *first.spacing),
        axial=is_axial(first),
    )


def _around(path: Path) -> Chosen:
    """The frames of a file and, if it is one slice of a series, of the files in its
    folder that belong to the series.
    """
    frames = frames_of(path)
    if isinstance(frames, Aside):
        raise FormatError(
            frames.problem
            or f"{path}: not an image (a {frames.what}); name an image series"
        )
    first = frames[0]
    if len(frames) > 1 or first.position is None:
        return Chosen(frames)
    asides: list[Aside] = []
    for file in sorted(path.parent.iterdir()):
        if file == path or not is_dicom(file):
            continue
        others = frames_of(file)
        if isinstance(others, Aside):
            asides.append(others)
            continue
        frames += [other for other in others if _belongs(first, other)]
    return Chosen(frames, _remarks(frames, asides, 0))


def _belongs(first: Frame, other: Frame) -> bool:
    in_series = other.series == first.series
    return in_series and (bool(first.series) or same_plane(first, other))
