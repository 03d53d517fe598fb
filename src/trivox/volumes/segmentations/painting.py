"""Segments to a label map: which value each has, and what a voxel of several is.

A voxel has one label. A segment that lies wholly in another is painted over it, as a
tumour over its organ; two that only share a part have no such order, and are refused
unless the dataset declares them as regions, which may overlap.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trivox.errors import LabelError, few
from trivox.volumes.segmentations.segments import (
    Grid,
    Patch,
    Segment,
    Segmentation,
)
from trivox.volumes.segmentations.signature import folded

LARGEST = 2**31 - 1
"""Of label values."""
Labels = NDArray[np.int32]


class Meaning(Protocol):
    """What a dataset calls its labels: names and values, regions of several values, and
    how these are painted.
    """

    @property
    def labels(self) -> Mapping[str, int]:
        """Name -> value, the background left out."""

    @property
    def regions(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> the values that belong to it; none where labels exclude each other."""

    @property
    def background(self) -> int:
        """The value of what has no label."""

    def paint_regions(self, present: Any, /) -> Any:
        """Masks `(region, ...)` to indices of labels."""

    def decode(self, indices: Any, /) -> Any:
        """Indices of labels to values."""


class Painted(NamedTuple):
    """Label values `(z, y, x)`, and what has to be said of how they came about."""

    array: Labels
    remarks: tuple[str, ...] = ()


class Values(NamedTuple):
    """The value of each segment, by its place; remarks: how numbers decided."""

    values: tuple[int, ...]
    remarks: tuple[str, ...] = ()


def painted(segmentation: Segmentation, grid: Grid, meaning: Meaning | None) -> Painted:
    """The label map of a segmentation on a grid.

    meaning: of the dataset, whose names decide the values; None: the numbers of the
    segments are the values. Raises `LabelError` for segments that the dataset does not
    know, and for those that share voxels and are no regions.
    """
    patches = [*segmentation.patches(grid)]
    segments = segmentation.segments
    present = sorted({patch.segment for patch in patches})
    if meaning is not None and _are_regions(segments, present, meaning):
        return Painted(_regions(segments, patches, grid, meaning))
    values = values_of(segments, present, meaning)
    background = 0 if meaning is None else meaning.background
    array, remarks = _exclusive(segments, patches, grid, values.values)
    table = np.array([background, *values.values], dtype=np.int32)
    for plane in array:
        plane[...] = table[plane]
    return Painted(array, (*values.remarks, *remarks))


def numbered(segments: Sequence[Segment]) -> dict[str, int]:
    """The value of each name where nothing else says it: its number, if every name has
    one of its own above 0; else its place in the file. A name that is there twice is
    one label.
    """
    numbers: dict[str, int] = {}
    for segment in segments:
        numbers.setdefault(segment.name or f"label_{segment.number}", segment.number)
    distinct = len(set(numbers.values())) == len(numbers)
    if distinct and all(0 < number <= LARGEST for number in numbers.values()):
        return numbers
    return {name: place for place, name in enumerate(numbers, start=1)}


def values_of(
    segments: Sequence[Segment], present: Iterable[int], meaning: Meaning | None
) -> Values:
    """The value of each segment; raises `LabelError` for those that mark voxels and have
    none.

    A segment whose name says nothing (`Segment_2`, blank) is known by its number.
    """
    if meaning is None:
        numbers = numbered(segments)
        named = [segment.name or f"label_{segment.number}" for segment in segments]
        return Values(tuple(numbers[name] for name in named))
    names = _values_by_folded(meaning.labels)
    known = set(meaning.labels.values())
    values: list[int] = []
    by_number: list[str] = []
    unknown: dict[int, str] = {}
    for place, segment in enumerate(segments):
        value = meaning.labels.get(segment.name, names.get(folded(segment.name)))
        if value is None and not segment.is_named and segment.number in known:
            value = segment.number
            by_number.append(segment.shown)
        if value is None:
            unknown[place] = segment.shown
        values.append(meaning.background if value is None else value)
    strange = [unknown[place] for place in present if place in unknown]
    if strange:
        raise LabelError(
            f"segments {few(strange)} are no labels of the dataset (which are "
            f"{few(meaning.labels)}); rename them, or declare them there"
        )
    remarks: tuple[str, ...] = ()
    if by_number:
        remarks = (f"names: {few(by_number)} known by number, not by name",)
    return Values(tuple(values), remarks)


def _values_by_folded(labels: Mapping[str, int]) -> dict[str, int]:
    """Values by folded name; names that then are the same are left out."""
    values: dict[str, int] = {}
    twice: set[str] = set()
    for name, value in labels.items():
        key = folded(name)
        if key in values:
            twice.add(key)
        values[key] = value
    return {name: value for name, value in values.items() if name not in twice}


def _are_regions(
    segments: Sequence[Segment], present: Sequence[int], meaning: Meaning
) -> bool:
    """Whether the segments are the dataset's regions, and not its labels."""
    names = {folded(segments[place].name) for place in present}
    labels = {folded(name) for name in meaning.labels}
    regions = {folded(name) for name in meaning.regions}
    return bool(names) and not names <= labels and names <= regions


def _regions(
    segments: Sequence[Segment],
    patches: Sequence[Patch],
    grid: Grid,
    meaning: Meaning,
) -> Labels:
    """Regions painted in the dataset's order."""
    places = {folded(name): place for place, name in enumerate(meaning.regions)}
    present = np.zeros((len(places), *grid.shape), bool)
    for patch in patches:
        region = present[places[folded(segments[patch.segment].name)]]
        _part(region, patch)[patch.mask] = True
    labels = meaning.decode(meaning.paint_regions(present))
    return np.asarray(labels, dtype=np.int32)


def _part(array: NDArray[Any], patch: Patch) -> NDArray[Any]:
    """The view of an array `(z, y, x)` that a patch covers, `(rows, columns)`."""
    turned = patch.turned.apply(array[None])[0]
    slice_, row, column = patch.corner
    rows, columns = patch.size
    part: NDArray[Any] = turned[slice_, row : row + rows, column : column + columns]
    return part


def _exclusive(
    segments: Sequence[Segment],
    patches: Sequence[Patch],
    grid: Grid,
    values: Sequence[int],
) -> tuple[Labels, tuple[str, ...]]:
    """Places of segments + 1, larger ones first, so that inner ones lie over outer
    ones.
    """
    sizes: dict[int, int] = {}
    groups: dict[int, list[Patch]] = {}
    for patch in patches:
        # segments of one label are one: they have no border against each other
        place = values.index(values[patch.segment])
        sizes[place] = sizes.get(place, 0) + int(np.bitwise_count(patch.bits).sum())
        groups.setdefault(place, []).append(patch)
    owners = np.zeros(grid.shape, np.int32)
    areas: dict[int, int] = {}
    inner: list[str] = []
    for place in sorted(groups, key=lambda each: (-sizes[each], each)):
        under = np.zeros(len(segments) + 1, np.int64)
        for patch in groups[place]:
            part = _part(owners, patch)
            mask = patch.mask
            under += np.bincount(part[mask], minlength=len(under))
            part[mask] = place + 1
        under[place + 1] = 0
        areas[place] = int(under.sum())
        outer = _require_order(segments, place, under, areas)
        inner += [f"{segments[place].shown} over {name}" for name in outer]
    remarks = (f"overlap: {few(inner)}, in which it lies",) if inner else ()
    return owners, remarks


def _require_order(
    segments: Sequence[Segment],
    place: int,
    under: NDArray[np.int64],
    areas: Mapping[int, int],
) -> list[str]:
    """The segments that one lies in; raises `LabelError` where it shares but a part.

    under: its voxels by what they were before, nothing first; areas: of the segments
    so far.
    """
    outer = []
    for other in (np.flatnonzero(under[1:])).tolist():
        shared = int(under[other + 1])
        if shared < areas[place] or areas[other] == areas[place]:
            raise LabelError(
                f"segments {segments[other].shown} and {segments[place].shown} share "
                f"{shared} voxels, and a voxel has one label; correct them, or declare "
                "regions in the dataset, which may overlap"
            )
        outer.append(segments[other].shown)
    return outer
