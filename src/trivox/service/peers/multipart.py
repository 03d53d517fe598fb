"""Parts of a multipart answer written to files as they come (RFC 2046; DICOM PS3.18
section 8.6.1.2), and a multipart body made of files.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

CHUNK = 1 << 20
LONGEST_HEADER = 1 << 16


class BrokenAnswerError(ValueError):
    """A multipart answer that is not well formed, or holds more than it may."""


def boundary_of(kind: str) -> bytes:
    """What separates the parts; raises `BrokenAnswerError` if the media type is another."""
    message = Message()
    message["content-type"] = kind
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/related" or not boundary:
        raise BrokenAnswerError("is not made of parts")
    return str(boundary).encode("utf-8", "replace")


@dataclass
class Parts:
    """An answer that is read part by part.

    read: gives at most so many bytes; largest: bytes of a part.
    """

    read: Callable[[int], bytes]
    boundary: bytes
    largest: int
    held: bytes = b""

    def write_each(self, new_file: Callable[[], Path]) -> Iterator[Path]:
        """Each part in a file of its own, once it is whole."""
        self.held = b"\r\n"
        self._until(self._line, None)
        while not self._is_last():
            self._until(b"\r\n\r\n", None, most=LONGEST_HEADER)
            file = new_file()
            with file.open("wb") as opened:
                self._until(self._line, opened, most=self.largest)
            yield file

    @property
    def _line(self) -> bytes:
        return b"\r\n--" + self.boundary

    def _is_last(self) -> bool:
        """Whether the boundary that was just passed is the last."""
        while len(self.held) < 2 and self._more():
            pass
        return self.held.startswith(b"--")

    def _more(self) -> bool:
        new = self.read(CHUNK)
        self.held += new
        return bool(new)

    def _until(self, mark: bytes, file: BinaryIO | None, most: int = CHUNK) -> None:
        """Pass everything up to a mark and the mark itself, writing the former."""
        passed = 0
        while True:
            place = self.held.find(mark)
            end = place if place >= 0 else max(0, len(self.held) - len(mark) + 1)
            passed += end
            if passed > most:
                raise BrokenAnswerError("is larger than it may be")
            if file is not None:
                file.write(self.held[:end])
            self.held = self.held[end:]
            if place >= 0:
                self.held = self.held[len(mark) :]
                return
            if not self._more():
                raise BrokenAnswerError("breaks off")


@dataclass(frozen=True)
class FilesBody:
    """DICOM files as one multipart body, read as it is sent."""

    files: Sequence[Path]
    sizes: Sequence[int]
    boundary: str

    @property
    def kind(self) -> str:
        """Its media type."""
        return f'multipart/related; type="application/dicom"; boundary={self.boundary}'

    @property
    def _head(self) -> bytes:
        return f"--{self.boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()

    @property
    def _tail(self) -> bytes:
        return f"--{self.boundary}--\r\n".encode()

    @property
    def size(self) -> int:
        """In bytes."""
        around = len(self._head) + len(b"\r\n")
        return sum(self.sizes) + around * len(self.files) + len(self._tail)

    def chunks(self) -> Iterator[bytes]:
        """From the start."""
        for file in self.files:
            yield self._head
            with file.open("rb") as opened:
                while content := opened.read(CHUNK):
                    yield content
            yield b"\r\n"
        yield self._tail


def files_body(files: Sequence[Path], sizes: Sequence[int]) -> FilesBody:
    """A body of files; its boundary is in none of them but by a miracle."""
    return FilesBody(files, sizes, f"trivox-{token_hex(24)}")
