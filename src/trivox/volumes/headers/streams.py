"""The bytes of a file, never more of them than its header promises."""

import zlib
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError

CHUNK = 2**20
"""Bytes read, or values converted, at once."""
MAX_DEFLATE_RATIO = 1032
"""Of the deflate format: more cannot come out of a file."""
GZIP = 31
ZLIB_OR_GZIP = 47
"""How zlib is told what to expect."""
TOO_MUCH = "the file holds more voxels than its header declares; it is damaged, export it again"


class Source(Protocol):
    """What bytes are read from."""

    def read(self, count: int, /) -> bytes:
        """1 to `count` bytes, or none at the end."""


class Inflated:
    """The content of a gzip file (any number of members) or of a zlib stream, never
    inflating more than is asked for.
    """

    def __init__(self, file: BinaryIO, kind: int = GZIP) -> None:
        self._file = file
        self._kind = kind
        self._inflate = zlib.decompressobj(wbits=kind)
        self._waiting = b""

    def read(self, count: int, /) -> bytes:
        """1 to `count` bytes, or none at the end of the last member (its checksum is
        then verified).
        """
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            source = self._waiting or self._file.read(CHUNK)
            data = self._inflate.decompress(source, count)
            self._waiting = self._inflate.unconsumed_tail
            if data:
                return data
            if not source and not self._inflate.eof:
                raise FormatError(
                    "the compressed stream ends too early; the file is truncated, "
                    "copy or download it again"
                )

    def _next_member(self) -> bool:
        if self._kind != GZIP:
            return False
        rest = self._inflate.unused_data or self._file.read(CHUNK)
        self._waiting = rest.lstrip(b"\0")  # padding, as gzip does
        if self._waiting:
            self._inflate = zlib.decompressobj(wbits=GZIP)
        return bool(self._waiting)


def take(source: Source, target: memoryview) -> None:
    """Fill `target`; raises `FormatError` if the source ends before."""
    filled = 0
    while filled < len(target):
        data = source.read(min(len(target) - filled, CHUNK))
        if not data:
            raise FormatError(
                "holds fewer bytes than its header declares; it is truncated, "
                "copy or download it again"
            )
        target[filled : filled + len(data)] = data
        filled += len(data)


def skip(source: Source, count: int) -> None:
    """Read `count` bytes and forget them."""
    while count > 0:
        step = min(count, CHUNK)
        take(source, memoryview(bytearray(step)))
        count -= step


def take_values(source: Source, target: NDArray[Any], *, stored: np.dtype[Any]) -> None:
    """Fill a flat array with values that the source holds as `stored`.

    Memory of a new array is only taken as it is filled, so that a header that lies
    takes no more than its file holds.
    """
    if stored == target.dtype:
        take(source, target.data.cast("B"))
        return
    # float64 beyond float32 becomes inf, which the dataset check reports
    with np.errstate(over="ignore"):
        for start in range(0, len(target), CHUNK):
            part = np.empty(min(CHUNK, len(target) - start), dtype=stored)
            take(source, part.view(np.uint8).data)
            target[start : start + CHUNK] = part


def require_length(path: Path, declared: int, *, ratio: int = 1) -> None:
    """Raise `FormatError` for a header that promises more bytes than the file can hold,
    before memory is asked for; ratio: of its compression, at most.
    """
    if declared > path.stat().st_size * ratio:
        raise FormatError(
            f"{path.name} holds fewer bytes than the {declared} its header declares; "
            "it is truncated, copy it again"
        )
