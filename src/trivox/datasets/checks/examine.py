"""Looking at one case: its files are read once, and everything that can be said without
the other cases is noted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import numpy as np

from trivox.datasets.checks.findings import Finding, error, warning
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.listing import present_values
from trivox.errors import GeometryError, LabelError, few
from trivox.volumes.formats import read_header, read_labels, read_volume
from trivox.volumes.geometry import canonical_orientation, describe_other_voxels
from trivox.volumes.segmentations.segments import Grid
from trivox.volumes.segmentations.signature import is_segmentation, segmentation_in
from trivox.volumes.volume import Array, Spacing, Volume

T = TypeVar("T")
RARE_VOXELS = 10
RARE_VALUES = 5
"""Of so many rare values, the place is noted."""
LETTERS = (("S", "I"), ("A", "P"), ("R", "L"))
"""Where the canonical axes z, y, x point: forwards, backwards."""


@dataclass
class Examination:
    """What was seen in one case; fields stay empty where files could not be read."""

    case: Case
    findings: list[Finding] = field(default_factory=list)
    spacing: Spacing | None = None
    orientation: str = ""
    digest: str = ""
    label_digest: str = ""
    values: frozenset[int] = frozenset()
    remarks: list[tuple[str, str]] = field(default_factory=list)
    """Names of files, and what their readers had to say."""
    voxels: dict[int, int] = field(default_factory=dict)
    """How often each value occurs in the label map."""
    rare: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    """First voxel `(z, y, x)`, as stored, of values that occur only in a few."""


def examine(
    case: Case, channels: tuple[str, ...], labels: LabelScheme | None
) -> Examination:
    """Read all files of `case` and note what is wrong; never raises, so that one bad
    case does not stop a check.
    """
    examination = Examination(case)
    reader = partial(read_volume, choice=case.choice)
    images = [read_noting(file, reader, examination) for file in case.images]
    readable = [image for image in images if image is not None]
    for file, image in zip(case.images, images, strict=True):
        note_remarks(examination, file, image)
    if readable:
        examination.spacing, examination.orientation = _canonical_grid(readable[0])
        examination.findings += _image_findings(case, images, readable)
    if len(readable) == len(images):
        examination.findings += _channel_findings(case, readable, channels)
        examination.digest = digest_of(readable)
    if case.label is not None:
        grid = _grid_of(case, readable)
        read_label = partial(read_labels, onto=grid, meaning=labels)
        label = read_noting(case.label, read_label, examination)
        note_remarks(examination, case.label, label)
        if label is not None:
            _examine_label(examination, label, readable, labels)
    return examination


def read_noting(
    file: Path, reader: Callable[[Path], T], examination: Examination
) -> T | None:
    """What `reader` makes of a file; None, with a finding in `examination`, where it is
    missing, empty or damaged.
    """
    name = examination.case.name
    try:
        absent = _absence(file, name)
        if absent is None:
            return reader(file)
        examination.findings.append(absent)
    except LabelError as failure:
        examination.findings.append(_label_finding(file, name, failure))
    except GeometryError as failure:
        examination.findings.append(_place_finding(file, name, failure))
    # readers of damaged files raise anything; the check goes on
    except Exception as failure:
        examination.findings.append(_unreadable(file, name, failure))
    return None


def _label_finding(file: Path, name: str, failure: LabelError) -> Finding:
    """What is wrong with the content of a label map."""
    said = _one_line(failure)
    if is_segmentation(segmentation_in(file)):
        fix = "correct the segments, or the names in the dataset"
        return error("segments", name, said, fix)
    fractional = read_header(file).channels == 1
    code = "fractional-label" if fractional else "channel-count"
    return error(code, name, said, "save one channel of whole-number labels")


def _place_finding(file: Path, name: str, failure: GeometryError) -> Finding:
    """What is wrong with the place of a label map, or with the grid of an image."""
    if is_segmentation(segmentation_in(file)):
        fix = "give the image that it was drawn on, or correct the file"
        return error("geometry-mismatch", name, _one_line(failure), fix)
    return _unreadable(file, name, failure)


def _unreadable(file: Path, name: str, failure: Exception) -> Finding:
    message = f"{file} cannot be read ({_one_line(failure)})"
    fix = "copy or convert it again, or remove the case"
    return error("unreadable", name, message, fix)


def _grid_of(case: Case, images: list[Volume]) -> Grid | None:
    """The grid of a case's first image, None if it cannot be read."""
    if not images:
        return None
    return Grid(images[0].shape, images[0].affine, case.images[0], case.choice)


def note_remarks(examination: Examination, file: Path, volume: Volume | None) -> None:
    """Keep what the reader of a file had to say, with its name."""
    if volume is not None:
        examination.remarks += [(file.name, remark) for remark in volume.remarks]


def _absence(file: Path, name: str) -> Finding | None:
    """The finding of a file or folder that is missing or empty."""
    if not (file.exists() or file.is_symlink()):
        return error(
            "missing-file",
            name,
            f"{file} does not exist",
            "restore it or remove the case",
        )
    if file.is_dir():
        empty = not any(file.iterdir())
    else:
        empty = file.is_file() and file.stat().st_size == 0
    if not empty:
        return None
    return error(
        "empty-file", name, f"{file} is empty", "copy it again or remove the case"
    )


def _one_line(failure: Exception) -> str:
    return " ".join(str(failure).split())[:300] or type(failure).__name__


def _canonical_grid(volume: Volume) -> tuple[Spacing, str]:
    """Spacing along the canonical axes, and the orientation in letters: `RAS` has x to
    the right, y anterior, z up.
    """
    orientation = canonical_orientation(volume.affine)
    z, y, x = (volume.spacing[axis] for axis in orientation.axes)
    letters = {
        source: LETTERS[axis][orientation.flips[axis]]
        for axis, source in enumerate(orientation.axes)
    }
    return (z, y, x), letters[2] + letters[1] + letters[0]


def _image_findings(
    case: Case, images: list[Volume | None], readable: list[Volume]
) -> Iterator[Finding]:
    first = readable[0]
    for file, image in zip(case.images, images, strict=True):
        if image is None:
            continue
        mismatch = describe_other_voxels(
            first.shape, first.affine, image.shape, image.affine
        )
        if mismatch:
            yield error(
                "geometry-mismatch",
                case.name,
                f"{file.name} and the first channel: {mismatch}",
                "register and resample the channels to one grid",
            )
        bad = _non_finite(image.array)
        if bad:
            yield error(
                "nan-or-inf",
                case.name,
                f"{file.name} has {bad} voxels that are NaN or infinite",
                "replace them, for example by the background value",
            )
        for index, channel in enumerate(image.array):
            if channel.size and channel.min() == channel.max():
                yield warning(
                    "constant-image",
                    case.name,
                    f"{file.name}, channel {index}: every voxel is {channel.flat[0]}",
                    "check the export of this image",
                )


def _non_finite(array: Array) -> int:
    if array.dtype.kind in "iub":
        return 0
    return int(array.size - np.isfinite(array).sum())


def _channel_findings(
    case: Case, images: list[Volume], channels: tuple[str, ...]
) -> Iterator[Finding]:
    if case.absent:
        severity = warning if case.split == "test" else error
        yield severity(
            "missing-channel",
            case.name,
            f"has no {', '.join(channels[i] for i in case.absent)} file",
            "add it or move the case away; 'trivox predict --missing-channels zeros' "
            "does without",
        )
    count = sum(image.channels for image in images)
    if count + len(case.absent) != len(channels):
        yield error(
            "channel-count",
            case.name,
            f"{count} channels in {len(images)} image files, the dataset declares "
            f"{len(channels)} {list(channels)}",
            "add or remove files, or rename the channels",
        )


def digest_of(images: list[Volume]) -> str:
    """Hash of shape and decoded voxels, as float32 so that the file format does not
    matter.
    """
    content = blake2b(digest_size=16)
    for image in images:
        content.update(repr(image.array.shape).encode())
        content.update(np.ascontiguousarray(image.array, dtype=np.float32).data)
    return content.hexdigest()


def _examine_label(
    examination: Examination,
    label: Volume,
    images: list[Volume],
    labels: LabelScheme | None,
) -> None:
    counts = present_values(label.array)
    examination.values = frozenset(counts)
    examination.voxels = counts
    rare = [value for value, count in counts.items() if count <= RARE_VOXELS]
    for value in rare[:RARE_VALUES]:
        z, y, x = np.argwhere(label.array[0] == value)[0].tolist()
        examination.rare[value] = (z, y, x)
    examination.label_digest = digest_of([label])
    if images:
        examination.findings += _grid_findings(examination.case, images[0], label)
    if labels is not None:
        examination.findings += _value_findings(examination.case, counts, labels)


def _grid_findings(case: Case, image: Volume, label: Volume) -> Iterator[Finding]:
    mismatch = describe_other_voxels(
        image.shape, image.affine, label.shape, label.affine
    )
    if mismatch:
        yield error(
            "geometry-mismatch",
            case.name,
            f"image and label map: {mismatch}",
            "resample the label map to the image, or restore its header",
        )


def _value_findings(
    case: Case, counts: dict[int, int], labels: LabelScheme
) -> Iterator[Finding]:
    declared = (*labels.values, labels.ignore)
    unknown = [value for value in sorted(counts) if value not in declared]
    if unknown:
        listed = few(f"{value} ({counts[value]} voxels)" for value in unknown)
        yield error(
            "unknown-label",
            case.name,
            f"label values {listed} are not declared (declared: {list(labels.values)})",
            "correct the label map or declare the values",
        )
    if not set(counts) - {labels.background, labels.ignore}:
        yield warning(
            "empty-label",
            case.name,
            "the label map holds nothing but background",
            "keep it only if the case truly shows no structure",
        )
