"""DICOM SEG: segments of one bit, as fractions, or as a label map (DICOM PS3.3 A.51)."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError
from trivox.volumes.dicom.attributes import find, number, numbers, text
from trivox.volumes.dicom.files import load
from trivox.volumes.dicom.multiframe import (
    MEASURES,
    orientation_of,
    position_of,
    sources_of_frames,
)
from trivox.volumes.segmentations.planes import Planes, laid
from trivox.volumes.segmentations.references import (
    References,
    about_references,
    of_segmentation,
)
from trivox.volumes.segmentations.seg_pixels import stored_frames
from trivox.volumes.segmentations.segments import (
    Grid,
    Patch,
    Segment,
    cut_out,
    require_inside,
)

BINARY = "BINARY"
FRACTIONAL = "FRACTIONAL"
LABELMAP = "LABELMAP"
SHARE = 0.5
"""Of the largest fraction, from which on a voxel belongs to a segment."""
_BACKGROUND = ("125040", "DCM")
"""The code of what is no segment, in label maps."""
_TO_RAS = np.array([-1.0, -1.0, 1.0])
_EVERY = -1
"""Instead of a segment, of the frames of label maps."""
_TURNED = 1e-3
"""By which directions of two frames may differ, per pixel from the first."""


@dataclass(frozen=True, eq=False)
class DicomSeg:
    """A DICOM SEG.

    owners: place of the segment that each frame marks, `_EVERY` of label maps; levels:
    of label maps, the place of the segment of each value; passed_over: values that mean
    nothing; least: of fractions, the smallest value that counts.
    """

    path: Path
    type: str
    segments: tuple[Segment, ...]
    planes: Planes
    owners: NDArray[np.int64]
    references: References
    levels: dict[int, int]
    passed_over: frozenset[int]
    least: float

    @property
    def kind(self) -> str:
        """What it is."""
        return f"DICOM SEG ({self.type.lower()})"

    def grid(self) -> Grid:
        """The smallest grid that holds all of its frames."""
        return self.planes.grid()

    def remarks(self, grid: Grid) -> Iterator[str]:
        """What has to be said of its references; its place is known without them."""
        yield from about_references(self.references, grid, placed=True)

    def patches(self, grid: Grid) -> Iterator[Patch]:
        """The masks on a grid."""
        laying = laid(self.planes, grid)
        frames = zip(stored_frames(self.path), self.owners, strict=True)
        for index, (stored, owner) in enumerate(frames):
            z, y, x = laying.corners[index].tolist()
            for segment, mask in self._masks(stored, int(owner)):
                patch = cut_out(segment, laying.turned, (z, y, x), mask)
                if patch is not None:
                    require_inside(patch, laying.shape, self.segments[segment])
                    yield patch

    def _masks(
        self, stored: NDArray[Any], owner: int
    ) -> Iterator[tuple[int, NDArray[np.bool_]]]:
        """The masks of a frame, each with the place of its segment."""
        if owner != _EVERY:
            yield owner, stored >= self.least
            return
        for value in np.flatnonzero(np.bincount(stored.ravel())).tolist():
            if value in self.levels:
                yield self.levels[value], stored == value
            elif value not in self.passed_over:
                raise FormatError(
                    f"{self.path}: holds the value {value}, which is none of its "
                    "segments; export it again"
                )


def read_seg(path: Path, *, share: float = SHARE) -> DicomSeg:
    """What a DICOM SEG marks; its pixels are read when they are asked for.

    share: of the largest fraction, from which on a voxel belongs to a segment. Raises
    `FormatError` for tiles of slides and for frames without a place.
    """
    dataset = load(path, pixels=False)
    type_ = text(dataset, "SegmentationType").upper()
    if type_ not in (BINARY, FRACTIONAL, LABELMAP):
        raise FormatError(
            f"{path}: SegmentationType is '{type_}', not BINARY, FRACTIONAL or LABELMAP"
        )
    _require_volume(path, dataset)
    listed = _segments(path, dataset)
    background = _passed_over(dataset, listed) if type_ == LABELMAP else frozenset()
    segments = tuple(
        segment for segment, _ in listed if segment.number not in background
    )
    places = {segment.number: place for place, segment in enumerate(segments)}
    sources = sources_of_frames(dataset)
    return DicomSeg(
        path=path,
        type=type_,
        segments=segments,
        planes=_planes(path, dataset, sources),
        owners=_owners(path, sources, places, type_),
        references=of_segmentation(dataset),
        levels=places if type_ == LABELMAP else {},
        passed_over=background,
        least=_least(dataset, type_, share),
    )


def _require_volume(path: Path, dataset: Any) -> None:
    tiled = text(dataset, "DimensionOrganizationType").startswith("TILED")
    if tiled or dataset.get("TotalPixelMatrixColumns"):
        raise FormatError(
            f"{path}: a segmentation of tiles of a slide, which is no volume"
        )
    if not dataset.get("Rows") or not dataset.get("Columns"):
        raise FormatError(f"{path}: ends before its size; copy the file again")


def _segments(path: Path, dataset: Any) -> list[tuple[Segment, Any]]:
    """The segments in the order of the file, and their items."""
    listed = []
    for item in dataset.get("SegmentSequence") or []:
        label = text(item, "SegmentLabel") or text(item, "SegmentDescription")
        listed.append((Segment(int(item.SegmentNumber), label), item))
    numbers_ = [segment.number for segment, _ in listed]
    if not listed or len(set(numbers_)) < len(numbers_):
        raise FormatError(
            f"{path}: lists no segments, or two of one number; export it again"
        )
    return listed


def _passed_over(dataset: Any, listed: list[tuple[Segment, Any]]) -> frozenset[int]:
    """Values of a label map that are no segment: 0, that of the padding, and what is
    coded as background.
    """
    values = {0}
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        values.add(int(padding))
    for segment, item in listed:
        codes = item.get("SegmentedPropertyTypeCodeSequence") or []
        if any(_is_background(code) for code in codes):
            values.add(segment.number)
    return frozenset(values)


def _is_background(code: Any) -> bool:
    said = (text(code, "CodeValue"), text(code, "CodingSchemeDesignator"))
    return said == _BACKGROUND


def _least(dataset: Any, type_: str, share: float) -> float:
    if type_ != FRACTIONAL:
        return 1.0
    most = float(dataset.get("MaximumFractionalValue") or 0)
    if not 0 < most < 2**16:
        raise FormatError(
            "MaximumFractionalValue is missing or 0, so that its fractions mean "
            "nothing; export it again"
        )
    return max(share * most, 1e-9)


def _owners(
    path: Path, sources: list[Any], places: dict[int, int], type_: str
) -> NDArray[np.int64]:
    """The place of the segment that each frame marks."""
    owners = np.full(len(sources), _EVERY, np.int64)
    if type_ == LABELMAP:
        return owners
    alone = next(iter(places)) if len(places) == 1 else None
    group = "SegmentIdentificationSequence"
    for index, source in enumerate(sources):
        said = find(source, group, "ReferencedSegmentNumber")
        segment = alone if said is None else int(said)
        if segment not in places:
            raise FormatError(
                f"{path}: frame {index + 1} is of segment {segment}, which is not "
                "listed; export it again"
            )
        owners[index] = places[segment]
    return owners


def _planes(path: Path, dataset: Any, sources: list[Any]) -> Planes:
    """Where the frames lie."""
    size = (int(dataset.Rows), int(dataset.Columns))
    positions = np.array([_position(path, source) for source in sources])
    steps = np.array([_steps(path, source) for source in sources])
    reach = np.array([size[1], size[0]])[:, None]
    if (np.abs(steps - steps[0]) * reach).max() > _TURNED * max(size):
        raise GeometryError(
            f"{path}: its frames lie in several directions or have several pixel "
            "spacings, which are no volume"
        )
    across, down = steps[0]
    return Planes(size, across, down, positions, _depth(sources[0]))


def _position(path: Path, source: list[Any]) -> NDArray[np.float64]:
    position = position_of(source)
    if position is None:
        raise FormatError(
            f"{path}: a segmentation without ImagePositionPatient, of a picture "
            "without a place in space; it is no volume"
        )
    return np.asarray(position * _TO_RAS)


def _steps(path: Path, source: list[Any]) -> NDArray[np.float64]:
    """Steps from column to column and from row to row, RAS mm, a row each."""
    orientation = orientation_of(source)
    spacing = numbers(source, MEASURES, "PixelSpacing", 2)
    if orientation is None or spacing is None or (spacing <= 0).any():
        raise FormatError(
            f"{path}: a segmentation without ImageOrientationPatient or PixelSpacing; "
            "it is no volume"
        )
    directions = orientation.reshape(2, 3)
    steps: NDArray[np.float64] = directions * spacing[::-1, None] * _TO_RAS
    return steps


def _depth(source: list[Any]) -> float:
    between = abs(number(source, MEASURES, "SpacingBetweenSlices", 0.0))
    return between or abs(number(source, MEASURES, "SliceThickness", 0.0))
