"""What a header promises of its data, and reading them if the files can hold that."""

import bz2
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError
from trivox.volumes.headers.streams import (
    CHUNK,
    GZIP,
    MAX_DEFLATE_RATIO,
    TOO_MUCH,
    ZLIB_OR_GZIP,
    Inflated,
    Source,
    require_length,
    skip,
    take_values,
)

Encoding = Literal["raw", "gzip", "zlib", "bzip2", "text"]
LONGEST_NUMBER = 64
"""Characters of a number written as text."""
LINE = 2**16
"""Bytes of a line that is skipped, at most."""


@dataclass(frozen=True, eq=False)
class Promise:
    """sizes: of all axes, fastest first; channel_axis: which of them holds channels, if
    one does; dtype: with byte order; files: that hold equal parts, one after the other;
    offset: where the data begin in each (-1: they are its end); skipped: bytes of the
    decoded data before the voxels; lines: that come before the data; affine: to RAS mm.
    """

    sizes: tuple[int, ...]
    channel_axis: int | None
    dtype: np.dtype[Any]
    encoding: Encoding
    files: tuple[Path, ...]
    offset: int
    affine: NDArray[np.float64]
    skipped: int = 0
    lines: int = 0
    remarks: tuple[str, ...] = ()

    @property
    def part(self) -> int:
        """Voxels (of one channel each) in each file."""
        count = math.prod(self.sizes)
        if count % len(self.files):
            raise FormatError(
                f"{len(self.files)} data files cannot hold {count} voxels in equal "
                "parts; repair the header"
            )
        return count // len(self.files)

    def require_kept(self) -> None:
        """Raise `FormatError` where a file cannot hold what is promised of it."""
        bytes_each = self.part * self.dtype.itemsize + self.skipped
        for file in self.files:
            if self.encoding == "raw":
                require_length(file, bytes_each + max(self.offset, 0))
            elif self.encoding == "text":
                require_length(file, 2 * self.part - 1)
            elif self.encoding != "bzip2":  # whose ratio has no useful limit
                require_length(file, bytes_each, ratio=MAX_DEFLATE_RATIO)

    def read(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """All voxels `(c, ..., z, y, x)` as `dtype`, channels first."""
        flat = np.empty(math.prod(self.sizes), dtype=dtype)
        for number, file in enumerate(self.files):
            start = number * self.part
            self._fill(file, flat[start : start + self.part])
        array = flat.reshape(self.sizes[::-1])
        if self.channel_axis is None:
            return array[None]
        axis = len(self.sizes) - 1 - self.channel_axis
        return np.ascontiguousarray(np.moveaxis(array, axis, 0))

    def _fill(self, path: Path, target: NDArray[Any]) -> None:
        with path.open("rb") as file:
            self._go_to_data(file, path, len(target))
            if self.encoding == "text":
                _take_words(file, target, self.dtype)
                return
            with _decoded(file, self.encoding) as source:
                skip(source, self.skipped)
                take_values(source, target, stored=self.dtype)
                if self.encoding != "raw" and source.read(1):
                    raise FormatError(TOO_MUCH)

    def _go_to_data(self, file: BinaryIO, path: Path, count: int) -> None:
        if self.offset < 0:
            file.seek(max(path.stat().st_size - count * self.dtype.itemsize, 0))
            return
        file.seek(self.offset)
        for _ in range(self.lines):
            file.readline(LINE)


@contextmanager
def _decoded(file: BinaryIO, encoding: Encoding) -> Iterator[Source]:
    if encoding == "bzip2":
        with bz2.BZ2File(file) as source:
            yield source
    elif encoding == "raw":
        yield file
    else:
        yield Inflated(file, GZIP if encoding == "gzip" else ZLIB_OR_GZIP)


def _take_words(file: BinaryIO, target: NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Fill `target` with numbers written as text, a chunk at a time."""
    filled = 0
    rest = b""
    chunk = b"?"
    while chunk:
        chunk = file.read(CHUNK)
        words = (rest + chunk).split()
        # the last word may go on in the next chunk
        cut = bool(chunk) and not chunk[-1:].isspace()
        rest = words.pop() if cut else b""
        filled += len(words)
        if len(rest) > LONGEST_NUMBER or filled > len(target):
            break
        target[filled - len(words) : filled] = np.array(words, "S").astype(dtype)
    if chunk or filled != len(target):
        raise FormatError(
            f"does not hold the {len(target)} numbers that its header declares; it is "
            "damaged, export it again"
        )
