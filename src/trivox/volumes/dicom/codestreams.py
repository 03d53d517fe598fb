"""How large the images of compressed frames are, read from the frames themselves."""

import struct
from collections.abc import Callable
from typing import Any

from pydicom.encaps import generate_frames
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, RLELossless

from trivox.errors import FormatError

_LONGEST_RUN = 64
"""Bytes that one byte of RLE becomes, at most: two stand for 128."""
JPEG = "1.2.840.10008.1.2.4."
JPEG_SYNTAXES = tuple(JPEG + end for end in ("50", "51", "53", "55", "57", "70"))
"""Baseline, extended, and lossless JPEG."""
_CODESTREAM_START = b"\xff\x4f\xff\x51"
"""Of JPEG 2000: start of codestream, then image size."""
_JPEG_LS_FRAME = b"\xff\xf7"
_JPEG_FRAMES = frozenset((*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC)))
_ALONE = frozenset((0x01, *range(0xD0, 0xD9)))
"""Markers of JPEG that no length follows."""


def require_declared_sizes(dataset: Any) -> None:
    """Refuse compressed frames whose own size differs from the header's, before a
    decoder allocates it.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == RLELossless:
        _require_runs(dataset)
    size_of = _sizer(syntax)
    if size_of is None:
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


def _require_runs(dataset: Any) -> None:
    """Refuse frames larger than runs of that length can make, before they are
    allocated.
    """
    bytes_each = max(int(dataset.BitsAllocated) // 8, 1)
    declared = int(dataset.Rows) * int(dataset.Columns) * bytes_each
    count = int(dataset.get("NumberOfFrames") or 1)
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        if declared > len(frame) * _LONGEST_RUN:
            raise FormatError(
                f"a compressed frame of {len(frame)} bytes cannot hold {declared}, "
                "which are declared; the file is damaged"
            )


def _sizer(syntax: str) -> Callable[[bytes], tuple[int, int]] | None:
    if syntax in JPEG2000TransferSyntaxes:
        return _jpeg_2000_size
    if syntax in JPEGLSTransferSyntaxes:
        return _jpeg_ls_size
    return _jpeg_size if syntax in JPEG_SYNTAXES else None


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


def _jpeg_size(frame: bytes) -> tuple[int, int]:
    """(rows, columns) of a JPEG image, from segment to segment; zeros without a frame
    header.
    """
    start = 2
    while start + 9 <= len(frame) and frame[start] == 0xFF:
        marker = frame[start + 1]
        if marker in _JPEG_FRAMES:
            rows, columns = struct.unpack_from(">2H", frame, start + 5)
            return rows, columns
        start += 2
        if marker == 0xFF:
            start -= 1
        elif marker not in _ALONE:
            start += int(struct.unpack_from(">H", frame, start)[0])
    return 0, 0
