"""Scans as they were sent, read for people who look at them and for datasets.

Everything here reads files that somebody sent: it runs in a process of its own
(`trivox.service.serve.review.process`), never in the server.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from trivox.datasets.layouts.exams import VIEWS, is_exam
from trivox.errors import DataError, LabelError
from trivox.files import file_hash
from trivox.schema import Frozen
from trivox.service.serve.work.staging import CASE, is_image, staged
from trivox.volumes.choice import NO_CHOICE, SeriesChoice
from trivox.volumes.formats import read_labels, read_volume, write_volume
from trivox.volumes.geometry import on_grid_of
from trivox.volumes.volume import Volume

MOST_VOXELS = 1 << 26
"""Voxels of an image that browsers still show; larger ones are thinned out."""
VIEWED_KINDS = ("u1", "i2", "f4")
"""Types of voxels that the viewer shows as they are."""
ENDING = ".nii.gz"


class ScanOrder(Frozen):
    """What is to be done with a scan.

    parts: files that were sent; scratch: empty folder; channels: names that the model
    has for its images; unpacked: bytes that a zip may become; out: folder for the files;
    series: which one of a DICOM folder;
    channel: that is looked at, None: all are written in full; reference: label map of
    the model; labels: corrected label map; declared: names and values that it may hold.
    """

    parts: tuple[Path, ...]
    scratch: Path
    channels: tuple[str, ...]
    unpacked: int
    out: Path
    series: str | None = None
    channel: int | None = None
    reference: Path | None = None
    labels: Path | None = None
    declared: dict[str, int] = Field(default_factory=dict)
    background: int = 0
    words: tuple[str, ...] = ()
    memory: int = 1 << 32
    seconds: float = 600.0


class ScanAnswer(Frozen):
    """What became of it.

    kind: volume, or X-rays that lie one behind the other; step: of how many voxels along
    x, y, z one is shown; channels: images of the scan; sha256: of the file to look at.
    """

    kind: Literal["volume", "views"] = "volume"
    step: tuple[int, int, int] = (1, 1, 1)
    channels: int = 1
    sha256: str = ""
    remarks: tuple[str, ...] = ()


def view_name(channel: int) -> str:
    """The file that an image is looked at in."""
    return f"image_{channel:04d}{ENDING}"


def carry_out(order: ScanOrder) -> ScanAnswer:
    """Do what is ordered; raises `TrivoxError`, and `JobError` as `staged` does."""
    source = staged(order.parts, order.scratch, order.channels, order.unpacked)
    if order.labels is not None:
        write_labels(order)
    if is_exam(source):
        return _view_of_exam(source, order)
    volumes = channels_of(source, SeriesChoice(series=order.series))
    if order.channel is None:
        for number, volume in enumerate(volumes):
            write_volume(order.out / view_name(number), without_remarks(volume))
        return ScanAnswer(channels=len(volumes))
    return _view(volumes, order.channel, order.out)


def channels_of(source: Path, choice: SeriesChoice = NO_CHOICE) -> list[Volume]:
    """The images of a scan on one grid, a channel each."""
    files = [source]
    images = [] if source.is_file() else list(source.iterdir())
    if images and all(is_image(each.name) for each in images):
        files = sorted(images)
    volumes = [read_volume(file, choice=choice) for file in files]
    first = volumes[0]
    channels: list[Volume] = []
    for volume in volumes:
        alike = on_grid_of(first, volume, where="the images")
        channels += [alike.with_array(channel) for channel in alike.array]
    return channels


def _view(volumes: Sequence[Volume], channel: int, out: Path) -> ScanAnswer:
    if channel >= len(volumes):
        raise DataError(f"the scan has {len(volumes)} images, not {channel + 1}")
    thinned, step = thinned_out(volumes[channel])
    file = out / view_name(channel)
    write_volume(file, without_remarks(thinned))
    return ScanAnswer(
        step=step,
        channels=len(volumes),
        sha256=file_hash(file),
        remarks=volumes[channel].remarks,
    )


def thinned_out(
    volume: Volume, most: int = MOST_VOXELS
) -> tuple[Volume, tuple[int, int, int]]:
    """A volume of at most so many voxels: of the original ones, every second along the
    finest axis, until they are few enough; and the steps along x, y, z.
    """
    array = volume.array
    affine = volume.affine.copy()
    steps = [1, 1, 1]
    while array[0].size > most:
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        long_enough = [size > 1 for size in array.shape[:0:-1]]
        axis = int(np.argmin(np.where(long_enough, lengths, np.inf)))
        halves = [slice(None)] * 4
        halves[3 - axis] = slice(None, None, 2)
        array = array[tuple(halves)]
        affine[:3, axis] *= 2
        steps[axis] *= 2
    if array.dtype.str[1:] not in VIEWED_KINDS:
        array = array.astype(np.float32)
    return Volume(array, affine, unit_mm=volume.unit_mm), (steps[0], steps[1], steps[2])


def without_remarks(volume: Volume) -> Volume:
    """The voxels and their place, and nothing else that came with the file."""
    return Volume(np.ascontiguousarray(volume.array), volume.affine)


def _view_of_exam(exam: Path, order: ScanOrder) -> ScanAnswer:
    """The X-rays of an exam, one behind the other."""
    from trivox.datasets.exams import read_views  # loads slowly

    file = next(exam / name for name in VIEWS if (exam / name).is_file())
    views = read_views(file)
    target = order.out / view_name(order.channel or 0)
    write_volume(target, Volume(views[None], np.eye(4)))
    return ScanAnswer(kind="views", channels=len(views), sha256=file_hash(target))


def write_labels(order: ScanOrder) -> None:
    """Write a corrected label map on the grid of the model's; raises `TrivoxError` for
    one that is on another grid or holds what the model does not declare.
    """
    if order.labels is None or order.reference is None:
        return
    reference = read_labels(order.reference)
    labels = on_grid_of(reference, read_labels(order.labels), where="the label map")
    require_declared(labels, order.declared, order.background)
    largest = max([*order.declared.values(), order.background])
    array = labels.array.astype(np.min_scalar_type(largest))
    plain = Volume(array, reference.affine, unit_mm=reference.unit_mm)
    write_volume(order.out / f"labels{ENDING}", plain)


def require_declared(
    labels: Volume, declared: Mapping[str, int], background: int
) -> None:
    """Raise `LabelError` for values that no label of the model has."""
    values = {int(value) for value in np.unique(labels.array)}
    unknown = sorted(values - {*declared.values(), background})
    if unknown:
        shown = ", ".join(map(str, unknown[:5]))
        names = ", ".join(f"{value} {name}" for name, value in declared.items())
        raise LabelError(
            f"the label map holds {shown}, which the model does not declare; "
            f"its labels are {names}"
        )


def name_of_labels() -> str:
    """What the label map of a model is called among its results."""
    return f"{CASE}{ENDING}"
