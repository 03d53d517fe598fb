"""RTSTRUCT: contours of regions of interest (DICOM PS3.3 A.19, C.8.8.6)."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trivox.errors import FormatError, GeometryError, few
from trivox.volumes.choice import SeriesChoice
from trivox.volumes.dicom.attributes import text
from trivox.volumes.dicom.files import load
from trivox.volumes.dicom.reading import DicomSeries
from trivox.volumes.geometry import Orientation
from trivox.volumes.segmentations.contours import Points, filled
from trivox.volumes.segmentations.references import (
    References,
    about_references,
    of_structures,
)
from trivox.volumes.segmentations.segments import Grid, Patch, Segment, cut_out

CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
FLAT = 0.1
"""Voxels by which points of a contour may be off its plane."""
SAME_PLANE = 0.02
"""Voxels by which contours of one plane may lie apart."""
_FEWEST = 3
"""Points of a contour that has an inside."""
_TO_RAS = np.array([-1.0, -1.0, 1.0])
_FORWARD = (False, False, False)
_TURNED = {
    0: Orientation((2, 0, 1), _FORWARD),
    1: Orientation((1, 0, 2), _FORWARD),
    2: Orientation((0, 1, 2), _FORWARD),
}
"""By the axis x, y, z across the contours: slices, rows and columns of a grid."""


class Outline(NamedTuple):
    """A closed contour: the place of its segment, its points `(points, 3)`, RAS mm."""

    segment: int
    points: Points


class Placed(NamedTuple):
    """A contour in a grid: axis across it, height along that axis, and its points
    `(points, 2)`, as (column, row), all in voxels.
    """

    segment: int
    axis: int
    height: float
    points: Points


@dataclass(frozen=True, eq=False)
class Structures:
    """An RTSTRUCT; left_out: how many contours are no closed ones, by their kind."""

    path: Path
    segments: tuple[Segment, ...]
    outlines: tuple[Outline, ...]
    left_out: dict[str, int]
    references: References

    @property
    def kind(self) -> str:
        """What it is."""
        return "RTSTRUCT"

    def grid(self) -> Grid:
        """That of the image series beside it, since contours have no voxels."""
        for series in sorted(self.references.series):
            choice = SeriesChoice(series=series)
            try:
                header = DicomSeries(choice).header(self.path.parent)
            except FormatError:
                continue
            return Grid(header.shape, header.affine, self.path.parent, choice)
        raise GeometryError(
            f"{self.path}: holds contours, which have no voxels of their own, and the "
            "images that it names do not lie beside it; put them there, or give it as "
            "the label of an image"
        )

    def remarks(self, grid: Grid) -> Iterator[str]:
        """What is left out, what it refers to, and what lies outside."""
        if self.left_out:
            counts = few(f"{n} x {kind}" for kind, n in sorted(self.left_out.items()))
            yield f"contours: {counts} left out, only closed ones have an inside"
        yield from about_references(self.references, grid, placed=False)
        placed = _placed(self.outlines, self.segments, grid)
        outside: Counter[int] = Counter()
        nearer: Counter[int] = Counter()
        for one in placed:
            outside[one.segment] += _slice_of(one, grid) is None
        for group in _by_slice(placed, grid).values():
            nearer[group[0].segment] += len(group) - len(_nearest(group))
        yield from self._counted("outside the image", outside)
        yield from self._counted("between slices that a nearer one decides", nearer)

    def _counted(self, where: str, counts: Counter[int]) -> Iterator[str]:
        some = [
            f"{self.segments[place].shown} ({count})"
            for place, count in counts.items()
            if count
        ]
        if some:
            yield f"contours {where}: left out of {few(some)}"

    def patches(self, grid: Grid) -> Iterator[Patch]:
        """The masks on a grid: what lies inside of the contours of each slice."""
        placed = _placed(self.outlines, self.segments, grid)
        groups = _by_slice(placed, grid)
        if placed and not groups:
            raise GeometryError(
                f"{self.path}: all contours lie outside the image; give the image that "
                "they were drawn on"
            )
        for (segment, axis, slice_), group in groups.items():
            turned = _TURNED[axis]
            rows, columns = (grid.shape[each] for each in turned.axes[1:])
            polygons = _distinct(_nearest(group))
            mask, (row, column) = filled(polygons, (rows, columns))
            patch = cut_out(segment, turned, (slice_, row, column), mask)
            if patch is not None:
                yield patch


def read_structures(path: Path) -> Structures:
    """What an RTSTRUCT marks; raises `FormatError` for one without regions of
    interest.
    """
    dataset = load(path, pixels=True)
    regions = dataset.get("StructureSetROISequence") or []
    segments = tuple(
        Segment(int(region.ROINumber), text(region, "ROIName")) for region in regions
    )
    places = {segment.number: place for place, segment in enumerate(segments)}
    if not segments or len(places) < len(segments):
        raise FormatError(
            f"{path}: lists no regions of interest, or two of one number; export it "
            "again"
        )
    outlines: list[Outline] = []
    left_out: Counter[str] = Counter()
    for place, contour in _contours(path, dataset, places):
        kind = text(contour, "ContourGeometricType").upper()
        points = _points(contour)
        if kind in CLOSED and len(points) >= _FEWEST:
            outlines.append(Outline(place, points))
        else:
            left_out[_called(kind)] += 1
    references = of_structures(dataset)
    return Structures(path, segments, tuple(outlines), dict(left_out), references)


def _contours(
    path: Path, dataset: Any, places: dict[int, int]
) -> Iterator[tuple[int, Any]]:
    """All contours, each with the place of its region."""
    for entry in dataset.get("ROIContourSequence") or []:
        number = int(entry.ReferencedROINumber)
        if number not in places:
            raise FormatError(
                f"{path}: holds contours of region {number}, which is not listed; "
                "export it again"
            )
        for contour in entry.get("ContourSequence") or []:
            yield places[number], contour


def _called(kind: str) -> str:
    return "contour of too few points" if kind in CLOSED else kind or "unnamed kind"


def _points(contour: Any) -> Points:
    """The points of a contour `(points, 3)`, RAS mm."""
    element = contour.get_item("ContourData")
    said = None if element is None else element.value
    if isinstance(said, bytes):  # not yet made into numbers one by one
        words = said.replace(b"\0", b" ").split(b"\\")
        values = np.array([float(word) for word in words if word.strip()])
    else:
        values = np.atleast_1d(np.array(said or [], dtype=np.float64))
    if values.size % 3 or not np.isfinite(values).all():
        raise FormatError(
            "a contour holds numbers that are no points of 3 coordinates; the file is "
            "damaged, export it again"
        )
    points: Points = values.reshape(-1, 3) * _TO_RAS
    return points


def _placed(
    outlines: Sequence[Outline], segments: Sequence[Segment], grid: Grid
) -> list[Placed]:
    """Contours in the voxels of a grid, each in a plane of its rows and columns."""
    inverse = np.linalg.inv(grid.affine)
    indices = [
        outline.points @ inverse[:3, :3].T + inverse[:3, 3] for outline in outlines
    ]
    if not indices:
        return []
    depths = np.array([np.ptp(points, axis=0) for points in indices])
    usual = 2 - int(np.argmax((depths <= FLAT).sum(axis=0)[::-1]))
    placed = []
    for outline, points, depth in zip(outlines, indices, depths, strict=True):
        axis = usual if depth[usual] <= FLAT else int(np.argmin(depth))
        if not depth[axis] <= FLAT:
            raise GeometryError(
                f"contours of {segments[outline.segment].shown} lie across the slices "
                f"of the image, {depth[axis]:.3g} voxels deep; give the image that they "
                "were drawn on"
            )
        _, row, column = (2 - each for each in _TURNED[axis].axes)
        height = float(points[:, axis].mean())
        placed.append(Placed(outline.segment, axis, height, points[:, [column, row]]))
    return placed


def _slice_of(placed: Placed, grid: Grid) -> int | None:
    """The nearest slice, at most half a step away; None beyond the first and last."""
    slices = grid.shape[2 - placed.axis]
    nearest = int(np.clip(np.rint(placed.height), -1, slices))
    return nearest if 0 <= nearest < slices else None


def _by_slice(
    placed: Sequence[Placed], grid: Grid
) -> dict[tuple[int, int, int], list[Placed]]:
    """The contours of each segment, axis and slice."""
    groups: dict[tuple[int, int, int], list[Placed]] = {}
    for one in placed:
        slice_ = _slice_of(one, grid)
        if slice_ is not None:
            key = (one.segment, one.axis, slice_)
            groups.setdefault(key, []).append(one)
    return groups


def _nearest(group: Sequence[Placed]) -> list[Placed]:
    """The contours of the plane nearest to a slice, of those that it is nearest to:
    contours of two planes would cut holes into each other.
    """
    heights = np.array([one.height for one in group])
    closest = heights[int(np.argmin(np.abs(heights - np.rint(heights))))]
    return [one for one in group if abs(one.height - closest) <= SAME_PLANE]


def _distinct(group: Sequence[Placed]) -> list[Points]:
    """The polygons of contours; one that is there twice would cut itself out."""
    seen: dict[bytes, Points] = {}
    for one in group:
        seen.setdefault(one.points.tobytes(), one.points)
    return [*seen.values()]
