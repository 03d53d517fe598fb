"""What is sent: `multipart/form-data`, written to the disk while it comes, counted and
hashed. Names of files are looked at for their suffix and then forgotten.
"""

import asyncio
import hashlib
import os
import struct
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from anyio.to_thread import run_sync
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from trivox.service.serve.api.limits import ServerLimits, no_space, require_space
from trivox.service.serve.api.problems import ProblemError
from trivox.service.serve.jobs.folders import sync_folder
from trivox.service.serve.work.staging import UNKNOWN, suffix_of

FILE = "file"
FIELDS = ("model", "format", "series", "path", "reference")
FIELD_BYTES = 4096
LONG_FIELDS = {"params": 1 << 18}
"""Bytes of fields that may be longer."""
HEADER_BYTES = 8192
PARTS = 4096
OVERHEAD = 1 << 20
"""Bytes of an upload that are no file."""
BATCH = 1 << 20
LOOK = 64 << 20
"""Bytes after which the disk is looked at again."""
HEAD = 348
"""Bytes by which formats are told apart."""
NIFTI_SIZES = (348, 540)


@dataclass(frozen=True)
class Part:
    """A file that was sent."""

    path: Path
    size: int
    sha256: str


@dataclass
class Upload:
    """What was sent: files in order, and fields."""

    folder: Path
    parts: list[Part] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(part.size for part in self.parts)


def format_suffix(head: bytes, name: str) -> str:
    """The suffix of a file by its first bytes, else by its name."""
    if head.startswith(b"PK\x03\x04"):
        return ".zip"
    if head.startswith(b"\x1f\x8b"):
        return ".nii.gz"
    if head.startswith(b"NRRD"):
        return ".nrrd"
    if head.startswith((b"ObjectType", b"NDims", b"Comment")):
        return ".mha"
    if head[128:132] == b"DICM":
        return ".dcm"
    if len(head) >= 4 and _has_nifti_size(head):
        return ".nii"
    return suffix_of(name)


def _has_nifti_size(head: bytes) -> bool:
    sizes = (*struct.unpack("<i", head[:4]), *struct.unpack(">i", head[:4]))
    return any(size in NIFTI_SIZES for size in sizes)


class PartFile:
    """A file on its way to the disk, written by one thread at a time."""

    def __init__(self, folder: Path, number: int, name: str) -> None:
        self.name = name
        self.path = folder / f"{number:04d}{UNKNOWN}"
        self.size = 0
        self._head = b""
        self._hash = hashlib.sha256()
        self._file: IO[bytes] = self.path.open("xb")

    def write(self, data: bytes) -> None:
        """Append."""
        self._head += data[: HEAD - len(self._head)]
        self.size += len(data)
        self._hash.update(data)
        self._file.write(data)

    def finish(self) -> Part:
        """Bring it to the disk under its final name."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        suffix = format_suffix(self._head, self.name)
        final = self.path.with_name(f"{self.path.stem}{suffix}")
        self.path.rename(final)
        return Part(final, self.size, self._hash.hexdigest())

    def close(self) -> None:
        """Leave it as it is."""
        self._file.close()


class FormReader:
    """Takes the parts of a form out of the bytes that come."""

    def __init__(
        self,
        upload: Upload,
        boundary: bytes,
        limits: ServerLimits,
        fields: Sequence[str] = FIELDS,
        files: Sequence[str] = (FILE,),
    ) -> None:
        self.files = files
        self.upload = upload
        self.limits = limits
        self.fields = fields
        self.received = 0
        self.ended = False
        self._looked = 0
        self._headers: dict[str, str] = {}
        self._header = [b"", b""]
        self._name = ""
        self._file: PartFile | None = None
        self._value = b""
        self._parts = 0
        events: Any = {
            "on_part_begin": self._part_begins,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._part_data,
            "on_part_end": self._part_ends,
            "on_end": self._form_ends,
        }
        self._parser = MultipartParser(boundary, events)

    def feed(self, data: bytes) -> None:
        """Take more bytes; raises `ProblemError`."""
        self.received += len(data)
        if self.received > self.limits.upload + OVERHEAD:
            raise too_large(self.limits.upload)
        if self.received > self._looked + LOOK:
            self._looked = self.received
            require_space(self.upload.folder, self.limits.reserve)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed("the form is damaged") from error
        except OSError as error:
            raise no_space() from error

    def finish(self) -> None:
        """All bytes are here; raises `ProblemError` if they are no whole form."""
        if not self.ended:
            raise _malformed("the form has no end")
        try:
            sync_folder(self.upload.folder)
        except OSError as error:
            raise no_space() from error

    def close(self) -> None:
        """Leave what is there."""
        if self._file is not None:
            self._file.close()

    # -- what the parser says ----------------------------------------------------------
    def _part_begins(self) -> None:
        self._parts += 1
        if self._parts > PARTS:
            raise _malformed(f"the form has more than {PARTS} parts")
        self._headers = {}
        self._header = [b"", b""]

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._add_to_header(0, data[start:end])

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._add_to_header(1, data[start:end])

    def _add_to_header(self, which: int, data: bytes) -> None:
        self._header[which] += data
        if len(self._header[which]) > HEADER_BYTES:
            raise _malformed("a header of the form is too long")

    def _header_ends(self) -> None:
        name, value = (each.decode("latin-1") for each in self._header)
        self._headers[name.lower()] = value
        self._header = [b"", b""]

    def _headers_end(self) -> None:
        disposition = self._headers.get("content-disposition", "")
        _, options = parse_options_header(disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._value = b""
        if self._name in self.files:
            name = options.get(b"filename", b"").decode("utf-8", "replace")
            number = len(self.upload.parts)
            self._file = PartFile(self.upload.folder, number, name)
        elif self._name not in self.fields:
            names = ", ".join((*self.files, *self.fields))
            raise _malformed(f"fields are {names}, and no others")
        elif self._name in self.upload.fields:
            raise _malformed(f"{self._name} is there twice")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(data[start:end])
            if self.upload.size + self._file.size > self.limits.upload:
                raise too_large(self.limits.upload)
            return
        self._value += data[start:end]
        if len(self._value) > LONG_FIELDS.get(self._name, FIELD_BYTES):
            raise _malformed(f"{self._name} is too long")

    def _part_ends(self) -> None:
        if self._file is not None:
            file = self._file
            self._file = None
            self.upload.parts.append(file.finish())
            return
        try:
            self.upload.fields[self._name] = self._value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _malformed(f"{self._name} is not UTF-8") from error

    def _form_ends(self) -> None:
        self.ended = True


async def received(
    request: Request,
    folder: Path,
    limits: ServerLimits,
    fields: Sequence[str] = FIELDS,
    files: Sequence[str] = (FILE,),
) -> Upload:
    """Write what a request brings into a folder; raises `ProblemError`. files: names of
    the parts that are files; fields: of what it may bring beside them.
    """
    upload = Upload(folder)
    reader = FormReader(upload, _boundary(request), limits, fields, files)
    _require_length(request, folder, limits)
    try:
        async for batch in _batches(request, limits.silence):
            await run_sync(reader.feed, batch)
        await run_sync(reader.finish)
    finally:
        reader.close()
    return upload


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 200:
        raise ProblemError(
            "unsupported-media-type", "send a form: curl -F model=NAME -F file=@SCAN"
        )
    return boundary


def _require_length(request: Request, folder: Path, limits: ServerLimits) -> None:
    """Refuse what is announced to be too large before any of it comes."""
    announced = request.headers.get("content-length", "0")
    length = int(announced) if announced.isdecimal() else 0
    if length > limits.upload + OVERHEAD:
        raise too_large(limits.upload)
    require_space(folder, limits.reserve, length)


async def _batches(request: Request, silence: float) -> AsyncIterator[bytes]:
    """The body in larger pieces; raises `ProblemError` where nothing comes."""
    stream = request.stream()
    batch = bytearray()
    while True:
        try:
            chunk = await asyncio.wait_for(anext(stream, None), silence)
        except TimeoutError as error:
            raise ProblemError("timeout", "send the upload again") from error
        except ClientDisconnect as error:
            raise _malformed("the upload was cut off") from error
        if chunk is None:
            break
        batch += chunk
        if len(batch) >= BATCH:
            yield bytes(batch)
            batch.clear()
    yield bytes(batch)


def too_large(limit: int) -> ProblemError:
    """What is said of too many bytes."""
    return ProblemError("too-large", f"send at most {limit} bytes")


def _malformed(reason: str) -> ProblemError:
    return ProblemError("invalid-request", reason)
