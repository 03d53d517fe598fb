"""Reading a case the way all later rooms see it: channels stacked, canonical
orientation, cropped to the non-zero box.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from trivox.datasets.boxes import box_of
from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, GeometryError, TrivoxError, of_case
from trivox.volumes.formats import read_labels, read_volume
from trivox.volumes.geometry import (
    Orientation,
    canonical_orientation,
    reorient,
    require_same_grid,
)
from trivox.volumes.volume import Array, Shape, Spacing, Volume

BoxEdges = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and the one after the last, along z, y, x."""


@dataclass(frozen=True, eq=False)
class CroppedCase:
    """An image `(c, z, y, x)` float32 and, if known, its label indices `(z, y, x)`, and
    how to get back to the source.
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


def read_channels(case: Case, *, channels: int) -> Volume:
    """All channels of a case as one float32 volume, zeros for absent ones; raises an
    error that names the case.
    """
    case.require_usable()
    if not case.images:
        raise DataError(
            f"{case.name}: no image file for any of {channels} channels; check the case"
        )
    volumes = [read_volume(path, choice=case.choice) for path in case.images]
    for path, volume in zip(case.images[1:], volumes[1:], strict=True):
        require_same_grid(
            volumes[0],
            volume,
            where=f"{case.name}: {case.images[0].name} and {path.name}",
        )
    stacked = [*chain.from_iterable(volume.array for volume in volumes)]
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


def read_case(case: Case, *, channels: int, labels: LabelScheme | None) -> CroppedCase:
    """Read, orient and crop a case; with `labels`, also its label map as indices."""
    try:
        volume = read_channels(case, channels=channels)
        if labels is None or case.label is None:
            return crop_volume(volume, None, where=case.name)
        label = read_labels(case.label)
        require_same_grid(volume, label, where=f"{case.name}: image and label")
        indices = labels.encode(label.array, where=case.name)
        return crop_volume(volume, indices, where=case.name)
    except TrivoxError as error:
        raise type(error)(of_case(case.name, str(error))) from error


def crop_volume(volume: Volume, label: Array | None, *, where: str) -> CroppedCase:
    """Orient `(c, z, y, x)` to canonical axes and crop to the box outside which all
    channels are zero.
    """
    if not np.isfinite(volume.array).all():
        raise DataError(
            f"{where}: the image holds NaN or infinite values, or some beyond 3.4e38; "
            "repair it, 'trivox check' lists all such files"
        )
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


def nonzero_box(image: Array) -> BoxEdges:
    """The smallest box that holds all voxels `(c, z, y, x)` that are not zero in every
    channel; all of it if none.
    """
    present = (image != 0).any(axis=0)
    if min(present.shape) == 0:
        raise GeometryError("the image has an axis without voxels; repair the file")
    z, y, x = box_of(present) or (slice(0, size) for size in present.shape)
    return (z.start, z.stop), (y.start, y.stop), (x.start, x.stop)
