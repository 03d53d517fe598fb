"""Reading a case the way all later rooms see it: channels stacked, canonical
orientation, cropped to the non-zero box.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox.datasets.boxes import NOTHING, box_of
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, GeometryError, TrivoxError, of_case
from trivox.volumes.formats import read_labels, read_volume
from trivox.volumes.geometry import (
    Orientation,
    canonical_orientation,
    on_grid_of,
    reorient,
)
from trivox.volumes.segmentations.segments import Grid
from trivox.volumes.volume import Array, Shape, Spacing, Volume

A_PORTION = 2**23
"""Values that are looked at at once."""
BoxEdges = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and the one after the last, along z, y, x."""


@dataclass(frozen=True, eq=False)
class CroppedCase:
    """An image `(c, z, y, x)`, float32 or as stored, and, if known, its label indices
    `(z, y, x)`, and how to get back to the source.
    """

    image: Array
    label: Array | None
    spacing: Spacing
    source: Volume
    """First image as read, for its grid; its array is a single broadcast value."""
    orientation: Orientation
    canonical_shape: Shape
    box: BoxEdges

    @property
    def shape(self) -> Shape:
        """Size after cropping."""
        _, z, y, x = self.image.shape
        return z, y, x

    @property
    def relative_size(self) -> float:
        """Voxels after cropping / before."""
        return float(np.prod(self.shape) / np.prod(self.canonical_shape))


def read_channels(case: Case, *, channels: int, stored: bool = False) -> Volume:
    """All channels of a case as one float32 volume, zeros for absent ones; raises an
    error that names the case.

    stored: a single file keeps the type of its values, where float32 holds them all.
    """
    case.require_usable()
    if not case.images:
        raise DataError(
            f"{case.name}: no image file for any of {channels} channels; check the case"
        )
    volumes = [read_volume(path, choice=case.choice) for path in case.images]
    alike = [
        on_grid_of(
            volumes[0],
            volume,
            where=f"{case.name}: {case.images[0].name} and {path.name}",
        )
        for path, volume in zip(case.images, volumes, strict=True)
    ]
    stacked = [*chain.from_iterable(volume.array for volume in alike)]
    count = len(stacked)
    if case.order and max(case.order) < count:
        stacked = [stacked[number] for number in case.order]
    if len(stacked) + len(case.absent) != channels:
        raise DataError(
            f"{case.name}: {count} channels found, {channels} expected; check its "
            "image files"
        )
    first = replace(volumes[0], remarks=_remarks(case, volumes))
    if len(volumes) == 1 and not case.absent and not case.order:
        if stored and np.can_cast(first.array.dtype, np.float32):
            return first
        return first.with_array(first.array.astype(np.float32, copy=False))
    array = np.zeros((channels, *volumes[0].shape), np.float32)
    present = (i for i in range(channels) if i not in case.absent)
    for index, channel in zip(present, stacked, strict=True):
        array[index] = channel
    return first.with_array(array)


def _remarks(case: Case, volumes: Sequence[Volume]) -> tuple[str, ...]:
    """What the readers of a case's files have to say, with the file's name where there
    are several; each sentence once.
    """
    remarks: dict[str, None] = {}
    for path, volume in zip(case.images, volumes, strict=True):
        before = f"{path.name}: " if len(volumes) > 1 else ""
        remarks.update((before + remark, None) for remark in volume.remarks)
    return tuple(remarks)


def read_case(
    case: Case,
    *,
    channels: int,
    labels: LabelScheme | None,
    orientation: Orientation | None = None,
) -> CroppedCase:
    """Read, orient and crop a case; with `labels`, also its label map as indices;
    orientation: None for canonical axes.
    """
    try:
        volume = read_channels(case, channels=channels)
        if labels is None or case.label is None:
            return crop_volume(volume, None, where=case.name, orientation=orientation)
        label = read_reference(case, labels, volume)
        indices = labels.encode(label.array, where=case.name)
        return crop_volume(volume, indices, where=case.name, orientation=orientation)
    except TrivoxError as error:
        raise type(error)(of_case(case.name, str(error))) from error


def read_reference(case: Case, labels: LabelScheme, grid: Volume) -> Volume:
    """The label map of a case, in its values, on the grid of its image or with the axes
    of another volume there; what it covers but a part of is background elsewhere.

    labels: what values mean, and which values named segments have. Raises
    `GeometryError` naming the case where the voxels are others.
    """
    if case.label is None:
        raise DataError(f"{case.name}: has no label map; check the case")
    return _read_marked(case.label, case, labels, grid, what="label")


def read_prediction(
    file: Path, case: Case, labels: LabelScheme, grid: Volume
) -> Volume:
    """A label map that was predicted for a case, likewise."""
    return _read_marked(file, case, labels, grid, what="prediction")


def _read_marked(
    file: Path, case: Case, labels: LabelScheme, grid: Volume, *, what: str
) -> Volume:
    onto = Grid(grid.shape, grid.affine, next(iter(case.images), None), case.choice)
    label = read_labels(file, onto=onto, meaning=labels)
    return on_grid_of(grid, label, where=f"{case.name}: image and {what}")


def crop_volume(
    volume: Volume,
    label: Array | None,
    *,
    where: str,
    orientation: Orientation | None = None,
) -> CroppedCase:
    """Orient `(c, z, y, x)`, to canonical axes unless told otherwise, and crop to the
    box outside which all channels are zero.
    """
    if not _is_finite(volume.array):
        raise DataError(
            f"{where}: the image holds NaN or infinite values, or some beyond 3.4e38; "
            "repair it, 'trivox check' lists all such files"
        )
    if orientation is None:
        orientation = canonical_orientation(volume.affine)
    canonical = reorient(volume, orientation)
    box = nonzero_box(canonical.array)
    inside = tuple(slice(*edge) for edge in box)
    nothing = np.broadcast_to(np.zeros((), volume.array.dtype), volume.array.shape)
    source = volume.with_array(nothing)
    return CroppedCase(
        image=canonical.array[:, *inside],
        label=None if label is None else orientation.apply(label)[0][inside],
        spacing=canonical.spacing,
        source=source,
        orientation=orientation,
        canonical_shape=canonical.shape,
        box=box,
    )


def _is_finite(image: Array) -> bool:
    """Whether all values are numbers."""
    if image.dtype.kind in "iu":
        return True
    return all(np.isfinite(part).all() for _, part in _portions(image, 1))


def nonzero_box(image: Array) -> BoxEdges:
    """The smallest box that holds all voxels `(c, z, y, x)` that are not zero in every
    channel; all of it if none.
    """
    shape = image.shape[1:]
    if min(shape) == 0:
        raise GeometryError("the image has an axis without voxels; repair the file")
    # the axis along which memory is read in one go
    axis = int(np.argmax(np.abs(image.strides[1:])))
    present = [np.zeros(size, bool) for size in shape]
    for first, part in _portions(image, axis + 1):
        box = box_of((part != 0).any(axis=0))
        for number, side in enumerate(box or NOTHING):
            start = first if number == axis else 0
            present[number][start + side.start : start + side.stop] = True
    z, y, x = (_edges(along) for along in present)
    return z, y, x


def _edges(along: NDArray[np.bool_]) -> tuple[int, int]:
    """The first and the one after the last that is true; all if none is."""
    hits = np.flatnonzero(along)
    if not hits.size:
        return 0, len(along)
    return int(hits[0]), int(hits[-1]) + 1


def _portions(image: Array, axis: int) -> Iterator[tuple[int, Array]]:
    """All of an image, some of it along an axis at a time: where it begins, and it."""
    size = image.shape[axis]
    step = max(1, A_PORTION * size // max(image.size, 1))
    before = (slice(None),) * axis
    for first in range(0, size, step):
        yield first, image[*before, first : first + step]
