"""The pixels of a DICOM file: decoded with care, and brought to real values."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.pixels import iter_pixels
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from trivox.errors import FormatError
from trivox.volumes.dicom.codestreams import JPEG_SYNTAXES, require_declared_sizes
from trivox.volumes.dicom.files import load
from trivox.volumes.dicom.frames import Frame
from trivox.volumes.dicom.native import NativeDecoder
from trivox.volumes.volume import Array

_SYNTAXES = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""By (implicit, little endian), for files that do not name theirs."""
_PADDING = 16
"""Bytes after the pixels that mean nothing."""


def decode(
    path: Path, indices: Sequence[int], *, native: NativeDecoder
) -> Iterator[Array]:
    """Yield the stored values (rows, columns) of the frames `indices`.

    MONOCHROME1 is not inverted: in CT and MR the values mean the same, only the display
    differs. Padding stays. native: decodes the JPEG family. Raises `FormatError` where
    the file holds no pixels, or other ones than its header declares.
    """
    dataset = load(path, pixels=True)
    if "PixelData" not in dataset:
        raise FormatError(f"{path}: holds no pixel data; copy the file again")
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = _SYNTAXES[dataset.original_encoding]
    require_declared_sizes(dataset)
    _require_no_more(dataset)
    declared = (dataset.Rows, dataset.Columns)
    for array in _planes(dataset, indices, native):
        if array.shape != declared:
            raise FormatError(
                f"{path}: decodes to {array.shape} pixels, declared are {declared}"
            )
        yield _without_unused_bits(array, dataset)


def _require_no_more(dataset: Any) -> None:
    """Refuse uncompressed pixels that fill another row or column than are declared: the
    size in the header is wrong, and rows would begin at the wrong place.
    """
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        return
    frames = int(dataset.get("NumberOfFrames") or 1)
    bytes_each = int(dataset.BitsAllocated) // 8
    shortest = min(int(dataset.Rows), int(dataset.Columns)) * bytes_each
    needed = frames * int(dataset.Rows) * int(dataset.Columns) * bytes_each
    stored = len(dataset.PixelData)
    # padding to an even length is allowed, and some archives add a little more
    if stored - needed >= max(shortest, _PADDING):
        raise FormatError(
            f"holds {stored} bytes of pixels, {dataset.Rows} x {dataset.Columns} need "
            f"{needed}; the size in the header is wrong, copy the file again"
        )


def _planes(
    dataset: Any, indices: Sequence[int], native: NativeDecoder
) -> Iterator[Array]:
    if dataset.file_meta.TransferSyntaxUID not in JPEG_SYNTAXES:
        yield from iter_pixels(dataset, raw=True, indices=list(indices))
        return
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    kind = np.dtype(f"{'i' if signed else 'u'}{int(dataset.BitsAllocated) // 8}")
    planes = native.decode(dataset).astype(kind, copy=False)
    for index in indices:
        yield planes[index]


def value_type(frames: list[Frame]) -> np.dtype[Any]:
    """int16 or int32 where slopes are 1 and intercepts whole (by what can be stored,
    not what is), else float32.
    """
    if all(frame.slope == 1 and frame.intercept.is_integer() for frame in frames):
        low = min(frame.stored[0] + frame.intercept for frame in frames)
        high = max(frame.stored[1] + frame.intercept for frame in frames)
        for kind in (np.int16, np.int32):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return np.dtype(kind)
    return np.dtype(np.float32)


def rescaled(stored: Array, frame: Frame, kind: np.dtype[Any]) -> Array:
    """Stored values to real ones (HU in CT), as `kind`; slope and intercept are those
    of the frame.
    """
    plane = stored.astype(kind)
    if kind.kind == "f":
        plane *= kind.type(frame.slope)
    plane += kind.type(frame.intercept)
    return plane


def _without_unused_bits(array: Array, dataset: Any) -> Array:
    """Clear bits above BitsStored (old files keep overlays there), or continue the sign
    through them: the shift is arithmetic for signed types.
    """
    stored = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    unused = array.dtype.itemsize * 8 - stored
    return (array << unused) >> unused if unused else array
