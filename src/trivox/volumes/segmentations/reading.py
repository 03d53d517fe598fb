"""Segmentations read as label maps, whatever their format."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from trivox.errors import FormatError, TrivoxError, few
from trivox.volumes.dicom.files import class_of, load, quiet
from trivox.volumes.dicom.frames import Aside, frames_of
from trivox.volumes.dicom.signature import is_dicom
from trivox.volumes.header import MAX_BYTES, Header, reading, require_size
from trivox.volumes.segmentations.painting import Meaning, numbered, painted
from trivox.volumes.segmentations.references import of_segmentation, of_structures
from trivox.volumes.segmentations.rtstruct import read_structures
from trivox.volumes.segmentations.seg import read_seg
from trivox.volumes.segmentations.segments import READ_AS, Grid, Segmentation
from trivox.volumes.segmentations.signature import RTSTRUCT_CLASS, SEG_CLASSES
from trivox.volumes.segmentations.slicer import read_slicer
from trivox.volumes.segmentations.slicer_fields import is_slicer
from trivox.volumes.volume import Volume


def read_segmentation(path: Path, *, share: float = 0.5) -> Segmentation:
    """What a segmentation marks, before any of its voxels is read.

    share: of fractions, from which on a voxel belongs to a segment. Raises `FormatError`
    for what is none.
    """
    if is_slicer(path):
        return read_slicer(path)
    kind = class_of(load(path, pixels=False))
    if kind in SEG_CLASSES:
        return read_seg(path, share=share)
    if kind == RTSTRUCT_CLASS:
        return read_structures(path)
    raise FormatError(f"{path}: is no DICOM SEG, RTSTRUCT or segmentation of 3D Slicer")


def values_in(path: Path) -> dict[str, int]:
    """The names of a segmentation's segments, and their numbers; from 1 on where these
    are not distinct.
    """
    with reading(path), quiet():
        return numbered(read_segmentation(path).segments)


def series_named(path: Path) -> frozenset[str]:
    """UIDs of the series that a DICOM SEG or RTSTRUCT says it was drawn on."""
    with reading(path), quiet():
        dataset = load(path, pixels=False)
        if class_of(dataset) == RTSTRUCT_CLASS:
            return of_structures(dataset).series
        return of_segmentation(dataset).series


def series_in(files: Iterable[Path]) -> frozenset[str]:
    """UIDs of the image series that DICOM files belong to."""
    uids: set[str] = set()
    for file in files:
        frames = frames_of(file) if is_dicom(file) else Aside(file, "", "")
        if isinstance(frames, list):
            uids.update(frame.series for frame in frames)
    return frozenset(uids)


def grid_of(path: Path) -> Grid:
    """The voxels that a segmentation marks, of an RTSTRUCT those of the image beside
    it.
    """
    with reading(path), quiet():
        grid = read_segmentation(path).grid()
        require_size(path, _header(grid), max_bytes=MAX_BYTES)
        return grid


def label_map(
    path: Path, *, onto: Grid | None, meaning: Meaning | None, share: float = 0.5
) -> Volume:
    """A segmentation as label map: int32, one channel.

    onto: the voxels of the image that it marks, None: its own; meaning: what the dataset
    calls its labels, None: values are the numbers of the segments. Errors name `path`.
    """
    with reading(path), quiet():
        try:
            segmentation = read_segmentation(path, share=share)
            grid = segmentation.grid() if onto is None else onto
            require_size(path, _header(grid), max_bytes=MAX_BYTES)
            result = painted(segmentation, grid, meaning)
            remarks = [*segmentation.remarks(grid)]
        except TrivoxError as error:
            if str(path) in str(error):
                raise
            raise type(error)(f"{path}: {error}") from error
    names = few(segment.shown for segment in segmentation.segments)
    read = f"{READ_AS} {segmentation.kind}: {names}"
    return Volume(result.array[None], grid.affine, (read, *remarks, *result.remarks))


def _header(grid: Grid) -> Header:
    return Header(grid.shape, grid.affine, 1, np.dtype(np.int32))
