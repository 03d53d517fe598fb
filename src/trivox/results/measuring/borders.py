"""Where an image ends: what touches that border goes on beyond it, nobody knows how far.

An image ends at its own sides, at sides of whole slices of one value that were added to
it, and at what a scanner writes where it measured nothing (far below air, in CT). The
zeros round a brain without its skull are no end: they begin nowhere as a whole slice.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from trivox.datasets.boxes import Box, box_of
from trivox.volumes.geometry import Orientation, canonical_orientation
from trivox.volumes.volume import Array, Volume

LEAST_MEASURED = -1024.0
"""In HU: what is below was not measured, if the border of the image shows it as well."""
FILLED = 0.5
"""Share of a slice that differs from what was added, where the image begins."""
DIRECTIONS = (("I", "S"), ("P", "A"), ("L", "R"))
"""Towards which the canonical axes z, y, x begin and end."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Field:
    """What an image shows: voxels of a box, but for those that were not measured.

    box: sides along z, y, x as stored; edge: `(z, y, x)`, what was not measured and the
    voxels beside it, None where all was measured; orientation: of the image.
    """

    box: Box
    edge: Mask | None
    orientation: Orientation

    @classmethod
    def of(cls, image: Volume) -> "Field":
        """The field of an image `(c, z, y, x)`."""
        unmeasured = _unmeasured(image.array)
        edge = None if unmeasured is None else binary_dilation(unmeasured)
        orientation = canonical_orientation(image.affine)
        return cls(_shown_box(image.array), edge, orientation)

    @property
    def flat_axis(self) -> int | None:
        """The axis of an image of one slice along which it has one voxel."""
        shape = [side.stop - side.start for side in self.box]
        return shape.index(1) if shape.count(1) == 1 else None

    def touched(self, place: Box) -> dict[int, list[str]]:
        """Sides of the field that a structure reaches: by axis, as letters of the
        patient (R, L, A, P, S, I) nearest to them; place: the box round it.
        """
        touched: dict[int, list[str]] = {}
        for axis, (side, whole) in enumerate(zip(place, self.box, strict=True)):
            ends = (side.start <= whole.start, side.stop >= whole.stop)
            letters = self._letters(axis)
            names = [name for name, end in zip(letters, ends, strict=True) if end]
            if names:
                touched[axis] = names
        return touched

    def leaves(self, mask: Array, place: Box) -> bool:
        """Whether a structure reaches voxels that were not measured."""
        return self.edge is not None and bool((self.edge[place] & mask).any())

    @property
    def axial_axis(self) -> int:
        """The stored axis along which axial slices are counted: that of an image of one
        slice, else the one nearest to head and foot.
        """
        flat = self.flat_axis
        return self.orientation.axes[0] if flat is None else flat

    def _letters(self, axis: int) -> tuple[str, str]:
        """Towards which directions a stored axis begins and ends."""
        canonical = self.orientation.axes.index(axis)
        first, last = DIRECTIONS[canonical]
        return (last, first) if self.orientation.flips[canonical] else (first, last)


def _unmeasured(image: Array) -> Mask | None:
    """Voxels that were not measured in some channel, None if there are none."""
    masks = [mask for mask in map(_channel_unmeasured, image) if mask is not None]
    return np.logical_or.reduce(masks) if masks else None


def _channel_unmeasured(channel: Array) -> Mask | None:
    least = channel.min()
    if not least < LEAST_MEASURED:
        return None
    mask = channel <= least
    sides = [np.take(mask, [0, -1], axis=axis) for axis in range(3)]
    return mask if any(side.any() for side in sides) else None


def _shown_box(image: Array) -> Box:
    """The image without slices of one value that were added at its sides."""
    depth, rows, columns = image.shape[1:]
    shown: Box = (slice(0, depth), slice(0, rows), slice(0, columns))
    for corner in (0, -1):
        value = image[:, corner, corner, corner]
        other = (image != value[:, None, None, None]).any(axis=0)
        box = box_of(other)
        if box is not None:
            shown = _within(shown, _begun(other, box))
    return shown


def _begun(other: Mask, box: Box) -> Box:
    """A box, but for sides at which what is inside does not begin as a whole slice."""
    inside = other[box]
    sides = []
    for axis, side in enumerate(box):
        first = np.take(inside, 0, axis=axis).mean() >= FILLED
        last = np.take(inside, -1, axis=axis).mean() >= FILLED
        start = side.start if first else 0
        stop = side.stop if last else other.shape[axis]
        sides.append(slice(start, stop))
    z, y, x = sides
    return z, y, x


def _within(one: Box, other: Box) -> Box:
    """What two boxes share."""
    z, y, x = (
        slice(max(p.start, q.start), min(p.stop, q.stop))
        for p, q in zip(one, other, strict=True)
    )
    return z, y, x
