"""What was sent becomes what `trivox predict` reads, under names that say nothing of a
patient.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import ZipInfo

from trivox.datasets.channels import split_stem
from trivox.datasets.layouts.exams import GEOMETRY, VIEWS
from trivox.datasets.listing import CHANNEL_SUFFIX
from trivox.service.serve.jobs.states import NO_FORMAT, Failure
from trivox.service.serve.work.archives import Archive, base_name, opened_archive
from trivox.service.serve.work.engine import JobError

CASE = "case"
"""What every scan is called, and so are its results."""
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".dcm", ".zip")
"""Of files that may be sent."""
UNKNOWN = ".bin"
EXAM = (GEOMETRY, *VIEWS)


def suffix_of(name: str) -> str:
    """The suffix of a file that may be sent, `UNKNOWN` for any other."""
    lowered = name.lower()
    return next((each for each in SUFFIXES if lowered.endswith(each)), UNKNOWN)


def staged(
    parts: Sequence[Path], folder: Path, channels: Sequence[str], most: int
) -> Path:
    """The input of a prediction, made of what was sent; raises `JobError`.

    parts: files in the order in which they were sent; folder: empty; channels: that the
    model reads; most: bytes that a zip may become.
    """
    names = [part.name for part in parts]
    if any(name in EXAM for name in names):
        return _exam(parts, folder)
    suffixes = [suffix_of(name) for name in names]
    if UNKNOWN in suffixes:
        raise JobError(Failure.UNKNOWN_FORMAT, NO_FORMAT)
    if suffixes == [".zip"]:
        with opened_archive(parts[0], most) as archive:
            return _unpacked(archive, folder, channels)
    if len(parts) == 1:
        return _linked(parts[0], folder / f"{CASE}{suffixes[0]}")
    if set(suffixes) == {".dcm"}:
        return _series(parts, folder)
    if ".zip" in suffixes:
        raise JobError(Failure.UNUSABLE_INPUT, "send one zip, or files without any")
    _require_count(len(parts), channels)
    for number, part in enumerate(parts):
        _linked(part, _channel_file(folder, number, suffixes[number]))
    return folder


def _exam(parts: Sequence[Path], folder: Path) -> Path:
    exam = folder / CASE
    exam.mkdir()
    for part in parts:
        _linked(part, exam / part.name)
    return exam


def _series(parts: Sequence[Path], folder: Path) -> Path:
    series = folder / CASE
    series.mkdir()
    for number, part in enumerate(parts):
        _linked(part, _slice_file(series, number))
    return series


def _unpacked(archive: Archive, folder: Path, channels: Sequence[str]) -> Path:
    """The content of a zip: an exam of X-rays, images, or else DICOM."""
    members = archive.members
    if not members:
        raise JobError(Failure.UNUSABLE_INPUT, "the zip is empty")
    exam = [each for each in members if base_name(each) in EXAM]
    if GEOMETRY in map(base_name, exam):
        return _written(archive, exam, folder / CASE, _exam_file)
    images = [each for each in members if is_image(each.filename)]
    if not images:
        return _written(archive, members, folder / CASE, _member_slice)
    if len(images) == 1:
        file = folder / f"{CASE}{suffix_of(images[0].filename)}"
        archive.write(images[0], file)
        return file
    _require_count(len(images), channels)
    for member in images:
        number = channel_of(base_name(member), channels)
        suffix = suffix_of(member.filename)
        archive.write(member, _new(_channel_file(folder, number, suffix)))
    return folder


def _written(
    archive: Archive,
    members: Sequence[ZipInfo],
    folder: Path,
    name: Callable[[Path, int, ZipInfo], Path],
) -> Path:
    folder.mkdir()
    for number, member in enumerate(members):
        archive.write(member, _new(name(folder, number, member)))
    return folder


def _exam_file(folder: Path, number: int, member: ZipInfo) -> Path:
    return folder / base_name(member)


def _member_slice(folder: Path, number: int, member: ZipInfo) -> Path:
    return _slice_file(folder, number)


def _slice_file(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.dcm"


def _channel_file(folder: Path, number: int, suffix: str) -> Path:
    return folder / f"{CASE}_{number:04d}{suffix}"


def is_image(name: str) -> bool:
    """Whether a file is a whole image by its name."""
    return suffix_of(name) in (".nii.gz", ".nii", ".nrrd", ".mha")


def channel_of(name: str, channels: Sequence[str]) -> int:
    """The channel that the name of a file ends in: its name, or its number; raises
    `JobError`.
    """
    if len(channels) == 1:
        return 0
    stem = name[: -len(suffix_of(name))]
    for number, channel in enumerate(channels):
        if stem.casefold() == channel.casefold():
            return number
    named = split_stem(stem, channels)
    if named is not None:
        return named[1]
    numbered = CHANNEL_SUFFIX.fullmatch(stem)
    if numbered and int(numbered["channel"]) < len(channels):
        return int(numbered["channel"])
    raise JobError(
        Failure.UNUSABLE_INPUT,
        f"the names of the files must end in {', '.join(channels)}",
    )


def _require_count(files: int, channels: Sequence[str]) -> None:
    if files != len(channels):
        names = ", ".join(channels)
        raise JobError(
            Failure.UNUSABLE_INPUT,
            f"{files} files were sent, the model reads {len(channels)} a case: {names}",
        )


def _new(file: Path) -> Path:
    if file.exists():
        raise JobError(
            Failure.UNUSABLE_INPUT, "two files in the zip are the same image"
        )
    return file


def _linked(part: Path, file: Path) -> Path:
    """The file under another name, without a copy where the disk can do so."""
    try:
        os.link(part, file)
    except OSError:
        shutil.copyfile(part, file)
    return file
