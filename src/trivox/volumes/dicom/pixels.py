"""The pixels of a DICOM file: decoded with care, and brought to real values."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels import iter_pixels
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
)

from trivox.errors import FormatError
from trivox.volumes.dicom.frames import Frame, load
from trivox.volumes.volume import Array

_CODESTREAM_START = b"\xff\x4f\xff\x51"
"""Of JPEG 2000: start of codestream, then image size."""
_JPEG_LS_FRAME = b"\xff\xf7"


def decode(path: Path, indices: Sequence[int]) -> Iterator[Array]:
    """Yield the stored values (rows, columns) of the frames `indices`.

    MONOCHROME1 is not inverted: in CT and MR the values mean the same, only the display
    differs. Padding stays. Raises `FormatError` where the file holds no pixels, or
    other ones than its header declares.
    """
    dataset = load(path, pixels=True)
    if dataset is None or "PixelData" not in dataset:
        raise FormatError(f"{path}: holds no pixel data; copy the file again")
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, _little = dataset.original_encoding
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    _require_codestream_sizes(dataset)
    declared = (dataset.Rows, dataset.Columns)
    for array in iter_pixels(dataset, raw=True, indices=list(indices)):
        if array.shape != declared:
            raise FormatError(
                f"{path}: decodes to {array.shape} pixels, declared are {declared}"
            )
        yield _without_unused_bits(array, dataset)


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


def _require_codestream_sizes(dataset: Any) -> None:
    """Refuse compressed frames whose own size differs from the header's, before a
    decoder allocates it.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in JPEG2000TransferSyntaxes:
        size_of = _jpeg_2000_size
    elif syntax in JPEGLSTransferSyntaxes:
        size_of = _jpeg_ls_size
    else:
        return
    declared = (int(dataset.Rows), int(dataset.Columns))
    count = int(dataset.get("NumberOfFrames") or 1)
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        size = size_of(frame)
        if size != declared:
            raise FormatError(
                f"a compressed frame holds {size} pixels, declared are {declared}; "
                "the file is damaged"
            )


def _jpeg_2000_size(frame: bytes) -> tuple[int, int]:
    """(rows, columns) of a JPEG 2000 codestream; zeros without one."""
    start = frame.find(_CODESTREAM_START)
    if start < 0:
        return 0, 0
    width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
    return height - top, width - left


def _jpeg_ls_size(frame: bytes) -> tuple[int, int]:
    """(rows, columns) of a JPEG-LS frame; zeros without a frame header."""
    start = frame.find(_JPEG_LS_FRAME)
    if start < 0:
        return 0, 0
    rows, columns = struct.unpack_from(">2H", frame, start + 5)
    return rows, columns
