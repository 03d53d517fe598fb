"""Which images a segmentation says it was drawn on, and whether they are those that it
lies on.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydicom import dcmread

from trivox.errors import FormatError, GeometryError
from trivox.volumes.dicom.series import choose
from trivox.volumes.dicom.signature import SUFFIXES, is_dicom
from trivox.volumes.segmentations.segments import Grid

_IDENTITY = ("FrameOfReferenceUID", "SeriesInstanceUID", "SOPInstanceUID")
_MOST_FRAMES = 100
"""Frames whose sources are looked up where nothing else names the images."""


class References(NamedTuple):
    """UIDs of the frames of reference, series and images that are named, or that images
    have.
    """

    frames: frozenset[str]
    series: frozenset[str]
    images: frozenset[str]


def of_segmentation(dataset: Any) -> References:
    """What a SEG names: in its list of series, else as the sources of its frames."""
    frames = _values([dataset], "FrameOfReferenceUID")
    listed = [*(dataset.get("ReferencedSeriesSequence") or [])]
    images = _values(_inner(listed, "ReferencedInstanceSequence"), _NAMED)
    if not images:
        groups = [
            *(dataset.get("SharedFunctionalGroupsSequence") or []),
            *list(dataset.get("PerFrameFunctionalGroupsSequence") or [])[:_MOST_FRAMES],
        ]
        derived = _inner(groups, "DerivationImageSequence")
        images = _values(_inner(derived, "SourceImageSequence"), _NAMED)
    return References(frames, _values(listed, "SeriesInstanceUID"), images)


def of_structures(dataset: Any) -> References:
    """What an RTSTRUCT names: in its frames of reference, and of each contour."""
    frames = [*(dataset.get("ReferencedFrameOfReferenceSequence") or [])]
    studies = _inner(frames, "RTReferencedStudySequence")
    series = _inner(studies, "RTReferencedSeriesSequence")
    images = _values(_inner(series, "ContourImageSequence"), _NAMED)
    structures = [*(dataset.get("StructureSetROISequence") or [])]
    named = _values(frames, "FrameOfReferenceUID")
    if not named:
        named = _values(structures, "ReferencedFrameOfReferenceUID")
    return References(named, _values(series, "SeriesInstanceUID"), images)


_NAMED = "ReferencedSOPInstanceUID"


def about_references(named: References, grid: Grid, *, placed: bool) -> Iterator[str]:
    """What has to be said where what is named is not the image that a grid is of.

    placed: pixels of its own agree with the image's, so that it lies where it should
    whatever it names. Raises `GeometryError` for one that is not and was drawn in
    another frame of reference. An image that is no DICOM has no names to compare.
    """
    there = _identity(grid)
    if there is None:
        return
    known = named.images & there.images
    elsewhere = bool(named.frames and there.frames) and not named.frames & there.frames
    if elsewhere and not known and not placed:
        raise GeometryError(
            "was drawn in another frame of reference than the image, and on images that "
            "are not there; give the image that it was drawn on"
        )
    if elsewhere:
        yield (
            "frame of reference: is another than the image's; placed by its coordinates "
            "all the same"
        )
    missing = len(named.images) - len(known)
    if missing:
        part = "none" if not known else f"{len(known)}"
        yield (
            f"references: of {len(named.images)} images that it names {part} belong to "
            "the image; placed by its coordinates"
        )


def _identity(grid: Grid) -> References | None:
    """What the files of a DICOM image are called; None of other images."""
    image = grid.image
    if image is None or not (image.is_dir() or _is_dicom(image)):
        return None
    try:
        frames = choose(image, grid.choice.series).frames
    except FormatError:
        return None  # a folder of pictures
    files = dict.fromkeys(frame.path for frame in frames)
    read = [
        dcmread(file, stop_before_pixels=True, specific_tags=[*_IDENTITY], force=True)
        for file in files
    ]
    places, series, images = (_values(read, keyword) for keyword in _IDENTITY)
    return References(places, series, images)


def _is_dicom(image: Path) -> bool:
    if image.suffix and image.suffix.lower() not in SUFFIXES:
        return image.suffix[1:].isdigit() and is_dicom(image)
    return is_dicom(image)


def _inner(items: Iterable[Any], keyword: str) -> list[Any]:
    """The items of a sequence in each of several items."""
    inner: list[Any] = []
    for item in items:
        inner += item.get(keyword) or []
    return inner


def _values(items: Iterable[Any], keyword: str) -> frozenset[str]:
    """The values of an attribute, blank ones left out."""
    values = {str(item.get(keyword) or "").strip() for item in items}
    return frozenset(values - {""})
