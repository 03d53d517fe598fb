"""What a segmentation holds: named segments, and where each of them is marked."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trivox.errors import GeometryError
from trivox.volumes.choice import NO_CHOICE, SeriesChoice
from trivox.volumes.geometry import Orientation
from trivox.volumes.volume import Shape

READ_AS = "read as"
"""How the remark begins that says what a file was read as."""
_SAYS_NOTHING = re.compile(r"(segment|segmentation|label|roi)?[ _-]*\d*", re.IGNORECASE)
"""Names that programs give where nobody named a segment."""


class Grid(NamedTuple):
    """Voxels `(z, y, x)` and the affine that maps `(x, y, z, 1)` to RAS mm.

    image: the file or folder whose grid it is, if known, and the choice by which it is
    read; what references name is compared with it.
    """

    shape: Shape
    affine: NDArray[np.float64]
    image: Path | None = None
    choice: SeriesChoice = NO_CHOICE


class Segment(NamedTuple):
    """number: by which the file knows it; name: what it is called, blank if nothing."""

    number: int
    name: str

    @property
    def shown(self) -> str:
        """What it is called in a message."""
        return f"'{self.name[:64]}'" if self.name else f"segment {self.number}"

    @property
    def is_named(self) -> bool:
        """Whether its name says more than its number."""
        return _SAYS_NOTHING.fullmatch(self.name.strip()) is None


class Patch(NamedTuple):
    """A rectangle of a segment's mask, in a plane of a grid.

    segment: its place in the list of segments; turned: brings the grid's axes into the
    order slices, rows, columns; corner: first voxel `(slice, row, column)` of the turned
    grid; size: `(rows, columns)`; bits: the mask, eight pixels a byte.
    """

    segment: int
    turned: Orientation
    corner: tuple[int, int, int]
    size: tuple[int, int]
    bits: NDArray[np.uint8]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask `(rows, columns)`."""
        rows, columns = self.size
        flat = np.unpackbits(self.bits, count=rows * columns)
        return flat.view(np.bool_).reshape(self.size)


class Segmentation(Protocol):
    """A file that marks segments."""

    @property
    def kind(self) -> str:
        """What it is, for a person."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """In the order of the file."""

    def grid(self) -> Grid:
        """The voxels that it marks, as far as it knows them; raises `GeometryError`
        where it says nothing of any.
        """

    def remarks(self, grid: Grid) -> Iterator[str]:
        """What has to be said of it on this grid; raises `GeometryError` where what it
        refers to cannot be that.
        """

    def patches(self, grid: Grid) -> Iterator[Patch]:
        """The masks on a grid; raises `GeometryError` where they do not lie on it."""


def cut_out(
    segment: int,
    turned: Orientation,
    corner: tuple[int, int, int],
    mask: NDArray[np.bool_],
) -> Patch | None:
    """The part of a mask `(rows, columns)` that holds something; None if nothing does.

    corner: where its first pixel lies.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    slice_, row, column = corner
    first = (slice_, row + int(rows[0]), column + int(columns[0]))
    rows_, columns_ = part.shape
    return Patch(segment, turned, first, (rows_, columns_), np.packbits(part))


def require_inside(patch: Patch, shape: tuple[int, int, int], segment: Segment) -> None:
    """Raise `GeometryError` for marked voxels that a grid does not have; shape: of the
    turned grid.
    """
    first = np.array(patch.corner)
    last = np.add(first, [1, *patch.size])
    if (first < 0).any() or (last > shape).any():
        raise GeometryError(
            f"{segment.shown} marks voxels outside the image; give the image that it "
            "was drawn on"
        )
