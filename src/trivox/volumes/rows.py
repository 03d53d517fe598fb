"""Resizing an image whose rows are made as they are needed, so that there is never a
copy of a large scan in float32.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from trivox.volumes.resampling import (
    apply_along,
    bands_of,
    multiply,
    nearest,
    resize_image,
    resize_slices,
    shrinking_first,
    spline_matrix,
)
from trivox.volumes.volume import Order, Shape

AT_ONCE = 2**25
"""Values up to which an image is made as a whole: 134 MB."""
A_PORTION = 2**24
"""Values that are made at a time otherwise."""


class Rows(Protocol):
    """An image `(c, z, y, x)` float32 that is made some rows at a time."""

    @property
    def size(self) -> tuple[int, int, int, int]:
        """Channels and voxels `(c, z, y, x)`."""

    def take(self, first: int, last: int) -> Tensor:
        """Rows `first` to `last` of all channels, in memory of their own."""


def whole(rows: Rows) -> Tensor:
    """All rows, `(c, z, y, x)`."""
    return rows.take(0, rows.size[1])


def resize_rows(
    rows: Rows, shape: Shape, *, order: Order = 3, nearest_axis: int | None = None
) -> Tensor:
    """What `resize_image` makes of all rows."""
    _, *sizes = rows.size
    changed = shrinking_first(sizes, shape)
    if math.prod(rows.size) <= AT_ONCE or not changed:
        return resize_image(whole(rows), shape, order=order, nearest_axis=nearest_axis)
    steps: list[_Step] = []
    if nearest_axis in changed:
        changed.remove(nearest_axis)
        taken = nearest(sizes[nearest_axis], shape[nearest_axis])
        steps.append(_Taken(nearest_axis, taken))
    for axis in changed:
        matrix = spline_matrix(sizes[axis], shape[axis], order)
        steps.append(_Product(axis, matrix))
    watched = _Watched(rows)
    image = _stepped(watched, steps)
    if not changed or order < 2:
        return image
    low, high = watched.limits()
    return image.clamp_(low[:, None, None, None], high[:, None, None, None])


def resize_rows_by_slices(
    rows: Rows, shape: Shape, *, axis: int, order: Order = 3, order_across: Order = 0
) -> Tensor:
    """What `resize_slices` makes of all rows."""
    image: Tensor
    if math.prod(rows.size) <= AT_ONCE or axis != 0:
        image = whole(rows)
    else:  # each slice for itself, which is done then
        _, height, width = shape
        parts = (
            resize_slices(part, (part.shape[1], height, width), axis=0, order=order)
            for part in _portions(rows)
        )
        image = _joined(parts, rows.size[1])
    return resize_slices(
        image, shape, axis=axis, order=order, order_across=order_across
    )


class _Step(Protocol):
    """Resizes one axis of an image."""

    @property
    def axis(self) -> int:
        """0, 1, 2 for z, y, x."""

    def applied(self, image: Tensor) -> Tensor:
        """The image resized along the axis."""

    def of_rows(self, rows: Rows) -> Tensor:
        """The same of rows that are made for it."""


@dataclass(frozen=True, eq=False)
class _Product:
    """By a matrix."""

    axis: int
    matrix: Tensor

    def applied(self, image: Tensor) -> Tensor:
        return apply_along(image, self.matrix, self.axis)

    def of_rows(self, rows: Rows) -> Tensor:
        parts = (
            multiply(rows.take(first, last), band, 0)
            for band, first, last in bands_of(self.matrix)
        )
        return _joined(parts, len(self.matrix))


@dataclass(frozen=True, eq=False)
class _Taken:
    """By the nearest slices."""

    axis: int
    slices: Tensor

    def applied(self, image: Tensor) -> Tensor:
        return image.index_select(self.axis + 1, self.slices)

    def of_rows(self, rows: Rows) -> Tensor:
        numbers = self.slices.tolist()
        parts = (rows.take(number, number + 1) for number in numbers)
        return _joined(parts, len(numbers))


def _stepped(rows: Rows, steps: Sequence[_Step]) -> Tensor:
    """An image after all steps: those in the plane that come before the first along the
    rows are done as the rows are made.
    """
    axes = [step.axis for step in steps]
    early = axes.index(0) if 0 in axes else len(axes)
    if early == 0:
        first, *later = steps
        image = first.of_rows(rows)
    else:
        later = list(steps[early:])
        parts = (_applied(part, steps[:early]) for part in _portions(rows))
        image = _joined(parts, rows.size[1])
    return _applied(image, later)


def _applied(image: Tensor, steps: Sequence[_Step]) -> Tensor:
    for step in steps:
        image = step.applied(image)
    return image


def _portions(rows: Rows) -> Iterator[Tensor]:
    """All rows, some at a time."""
    channels, depth, height, width = rows.size
    step = max(1, A_PORTION // (channels * height * width))
    for first in range(0, depth, step):
        yield rows.take(first, min(first + step, depth))


def _joined(parts: Iterable[Tensor], depth: int) -> Tensor:
    """Parts with some rows each as one image of `depth` rows."""
    done = 0
    image = torch.empty(0)
    for part in parts:
        if not done:
            image = part.new_empty(part.shape[0], depth, *part.shape[2:])
        image[:, done : done + part.shape[1]] = part
        done += part.shape[1]
    return image


class _Watched:
    """Rows whose least and largest values are noted as they are made."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self._seen = torch.zeros(rows.size[1], dtype=torch.bool)
        self._low = torch.full(rows.size[:1], math.inf)
        self._high = torch.full(rows.size[:1], -math.inf)

    @property
    def size(self) -> tuple[int, int, int, int]:
        return self.rows.size

    def take(self, first: int, last: int) -> Tensor:
        part = self.rows.take(first, last)
        low, high = torch.aminmax(part.flatten(1), dim=1)
        self._low = torch.minimum(self._low, low)
        self._high = torch.maximum(self._high, high)
        self._seen[first:last] = True
        return part

    def limits(self) -> tuple[Tensor, Tensor]:
        """Of each channel, over all rows."""
        for missing in torch.nonzero(~self._seen).flatten().tolist():
            self.take(missing, missing + 1)
        return self._low, self._high
