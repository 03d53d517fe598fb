"""The pixels of a DICOM SEG, frame by frame, never more of them than the file holds."""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRBigEndian

from trivox.errors import FormatError
from trivox.volumes.dicom.files import load
from trivox.volumes.dicom.native import native_decoder
from trivox.volumes.dicom.pixels import decode
from trivox.volumes.header import MAX_BYTES, Header, require_size

DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
"""Deflated Image Frame Compression (DICOM PS3.5 A.4.13)."""
_PADDING = 16
"""Bytes after the pixels that mean nothing."""
Stored = NDArray[Any]


def stored_frames(path: Path) -> Iterator[Stored]:
    """The stored values `(rows, columns)` of each frame, in the order of the file; bits
    are 0 and 1.

    Raises `FormatError` where the file holds other pixels than its header declares,
    before they are allocated.
    """
    dataset = load(path, pixels=True)
    if "PixelData" not in dataset:
        raise FormatError(f"{path}: holds no pixel data; copy the file again")
    bits = int(dataset.BitsAllocated)
    if bits not in (1, 8, 16):
        raise FormatError(f"{path}: pixels of {bits} bits are no segments")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise FormatError(
            f"{path}: its pixels have several colours; they are no segments"
        )
    _require_memory(path, dataset, bits)
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if syntax == DEFLATED_FRAMES:
        yield from _inflated(dataset, bits)
    elif syntax is not None and syntax.is_compressed and bits == 1:
        raise FormatError(
            f"{path}: segments of 1 bit in a compressed form are not read; store the "
            "file uncompressed"
        )
    elif bits == 1:
        if syntax == ExplicitVRBigEndian:
            raise FormatError(f"{path}: store the file as little endian")
        yield from _bits(dataset)
    else:
        count = _frames(dataset)
        with native_decoder() as native:
            yield from decode(path, range(count), native=native)


def _frames(dataset: Any) -> int:
    return int(dataset.get("NumberOfFrames") or 1)


def _require_memory(path: Path, dataset: Any, bits: int) -> None:
    """Raise `FormatError` for more pixels than are free as bits or bytes."""
    rows = int(dataset.Rows)
    columns = int(dataset.Columns)
    packed = (columns + 7) // 8 if bits == 1 else columns
    kind = np.dtype(np.uint16 if bits == 16 else np.uint8)
    header = Header((_frames(dataset), rows, packed), np.eye(4), 1, kind)
    require_size(path, header, max_bytes=MAX_BYTES)


def _bits(dataset: Any) -> Iterator[Stored]:
    """Frames of single bits, which follow each other without a gap: one may begin
    within a byte (DICOM PS3.5 8.1.1).
    """
    size = (int(dataset.Rows), int(dataset.Columns))
    pixels = size[0] * size[1]
    content = np.frombuffer(dataset.PixelData, np.uint8)
    count = _frames(dataset)
    needed = (count * pixels + 7) // 8
    row = (size[1] + 7) // 8
    if not 0 <= len(content) - needed < max(_PADDING, row):
        raise FormatError(
            f"holds {len(content)} bytes of pixels, {count} frames of {size[0]} x "
            f"{size[1]} bits need {needed}; the file is damaged, copy it again"
        )
    for number in range(count):
        yield _unpacked(content, number * pixels, size)


def _unpacked(content: NDArray[np.uint8], first: int, size: tuple[int, int]) -> Stored:
    """The bits from number `first` on."""
    pixels = size[0] * size[1]
    begin = first // 8
    end = (first + pixels + 7) // 8
    bits = np.unpackbits(content[begin:end], bitorder="little")
    offset = first - begin * 8
    return bits[offset : offset + pixels].reshape(size)


def _inflated(dataset: Any, bits: int) -> Iterator[Stored]:
    """Frames that are deflated one by one."""
    size = (int(dataset.Rows), int(dataset.Columns))
    pixels = size[0] * size[1]
    needed = (pixels * bits + 7) // 8
    count = _frames(dataset)
    for frame in generate_frames(dataset.PixelData, number_of_frames=count):
        content = zlib.decompressobj(-zlib.MAX_WBITS).decompress(frame, needed + 2)
        if not needed <= len(content) <= needed + 1:
            raise FormatError(
                f"a deflated frame holds other than the {needed} bytes of its size; "
                "the file is damaged, copy it again"
            )
        values = np.frombuffer(content[:needed], np.uint8)
        if bits == 1:
            yield _unpacked(values, 0, size)
        else:
            yield values.view(f"<u{bits // 8}").reshape(size)
