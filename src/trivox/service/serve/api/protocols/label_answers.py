"""Answers as clients of MONAI Label read them."""

import json
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

import numpy as np
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.responses import Response

from trivox.volumes.formats import read_labels

CHUNK = 1 << 20
BINARY = "application/octet-stream"
NRRD_TYPES = {"uint8": "uint8", "uint16": "uint16", "int16": "int16"}
LPS = np.array([-1.0, -1.0, 1.0])
"""What a step along x, y, z of RAS is in the space of the header."""


def nrrd_of(file: Path, dtype: str) -> bytes:
    """A label map as NRRD without compression. dtype: of its voxels."""
    volume = read_labels(file)
    array = np.ascontiguousarray(
        volume.array[0], dtype=np.dtype(dtype).newbyteorder("<")
    )
    directions = (volume.affine[:3, :3] * LPS[:, None]).T
    origin = volume.affine[:3, 3] * LPS
    lines = [
        "NRRD0004",
        f"type: {NRRD_TYPES[dtype]}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape[::-1]))}",
        f"space directions: {' '.join(map(_vector, directions))}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: raw",
        f"space origin: {_vector(origin)}",
    ]
    return "\n".join([*lines, "", ""]).encode() + array.tobytes()


def _vector(values: Any) -> str:
    numbers = ",".join(repr(float(value)) for value in values)
    return f"({numbers})"


def file_answer(file: IO[bytes], size: int, name: str) -> Response:
    """A file that is closed once it was sent."""
    headers = {
        "Content-Length": str(size),
        "Content-Disposition": f'attachment; filename="{name}"',
    }
    return StreamingResponse(_pieces(file), media_type=BINARY, headers=headers)


def both_answer(
    params: Mapping[str, Any], file: IO[bytes], size: int, name: str
) -> Response:
    """A form of parameters and a file."""
    boundary = token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="params"\r\n'
        f"Content-Type: application/json\r\n\r\n{json.dumps(params)}\r\n"
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; '
        f'filename="{name}"\r\nContent-Type: {BINARY}\r\n\r\n'
    ).encode()
    tail = f"\r\n--{boundary}--\r\n".encode()
    headers = {"Content-Length": str(len(head) + size + len(tail))}
    kind = f"multipart/form-data; boundary={boundary}"
    pieces = _framed(head, file, tail)
    return StreamingResponse(pieces, media_type=kind, headers=headers)


def params_answer(params: Mapping[str, Any]) -> Response:
    """Parameters alone."""
    return JSONResponse(params)


def opened(content: bytes | Path) -> tuple[IO[bytes], int]:
    """A file, or what is to be one, and its size in bytes."""
    if isinstance(content, Path):
        return content.open("rb"), content.stat().st_size
    return BytesIO(content), len(content)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while piece := file.read(CHUNK):
            yield piece


def _framed(head: bytes, file: IO[bytes], tail: bytes) -> Iterator[bytes]:
    yield head
    yield from _pieces(file)
    yield tail
