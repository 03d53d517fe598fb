"""Arrays as NIfTI-1 files and back, with their place in space.

Source: NIfTI-1 header, https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h
"""

import gzip
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox_client.errors import UnreadableFile

Array = NDArray[Any]

HEADER = 348
OFFSET = 352
"""Byte at which the voxels of a file begin that this module writes."""
CODES = {
    "u1": 2,
    "i2": 4,
    "i4": 8,
    "f4": 16,
    "f8": 64,
    "i1": 256,
    "u2": 512,
    "u4": 768,
    "i8": 1024,
    "u8": 1280,
}
TYPES = {code: name for name, code in CODES.items()}
MM = 2
ALIGNED = 2
"""Code of coordinates that are aligned to the scanner or to another image."""
LONGEST = 32767
"""Voxels along an axis that the header can say."""
SMALLER = {"b1": "u1", "f2": "f4"}
"""Types that the format does not have, and what they are written as."""


def nifti_bytes(array: Array, affine: Array) -> bytes:
    """A gzipped NIfTI file. array: (x, y, z); affine: voxel -> mm, RAS+, (4, 4).

    Raises `ValueError` for arrays of another shape or type.
    """
    voxels = np.asarray(array)
    matrix = np.asarray(affine, np.float64)
    _require_writable(voxels, matrix)
    name = voxels.dtype.str[1:]
    voxels = voxels.astype("<" + SMALLER.get(name, name), copy=False)
    header = _header(voxels, matrix)
    return gzip.compress(header + voxels.tobytes(order="F"), 1, mtime=0)


def _require_writable(voxels: Array, matrix: Array) -> None:
    if voxels.ndim != 3 or not voxels.size > 0 or max(voxels.shape) > LONGEST:
        raise ValueError(f"an image has x, y and z, this one the shape {voxels.shape}")
    name = voxels.dtype.str[1:]
    if SMALLER.get(name, name) not in CODES:
        raise ValueError(f"NIfTI holds no voxels of the type {voxels.dtype}")
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError("the affine is a matrix of 4 by 4 finite numbers")
    if abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise ValueError("the affine flattens the image")


def _header(voxels: Array, matrix: Array) -> bytes:
    header = bytearray(OFFSET)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    code = CODES[voxels.dtype.str[1:]]
    struct.pack_into("<i", header, 0, HEADER)
    struct.pack_into("<8h", header, 40, 3, *voxels.shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, code, voxels.dtype.itemsize * 8)
    struct.pack_into("<8f", header, 76, 1.0, *spacing, 0, 0, 0, 0)
    struct.pack_into("<3f", header, 108, OFFSET, 1.0, 0.0)
    header[123] = MM
    struct.pack_into("<2h", header, 252, 0, ALIGNED)
    struct.pack_into("<12f", header, 280, *matrix[:3].ravel())
    header[344:348] = b"n+1\0"
    return bytes(header)


def read_nifti(content: bytes) -> tuple[Array, Array]:
    """Voxels (x, y, z) or with further axes, and affine (4, 4), of a NIfTI-1 file, gzipped
    or not; raises `UnreadableFile`.
    """
    try:
        data = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        return _read(data)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise UnreadableFile(f"this is no whole NIfTI file ({error})") from error


def _read(data: bytes) -> tuple[Array, Array]:
    order = "<" if struct.unpack_from("<i", data, 0)[0] == HEADER else ">"
    if struct.unpack_from(f"{order}i", data, 0)[0] != HEADER:
        raise ValueError("the header is not one of NIfTI-1")
    dimensions = struct.unpack_from(f"{order}8h", data, 40)
    shape = dimensions[1 : dimensions[0] + 1]
    code = struct.unpack_from(f"{order}h", data, 70)[0]
    if not 1 <= dimensions[0] <= 7 or min(shape) < 1 or code not in TYPES:
        raise ValueError("the shape or the type is not one of NIfTI-1")
    offset, slope, intercept = struct.unpack_from(f"{order}3f", data, 108)
    count = int(np.prod(shape, dtype=np.int64))
    dtype = np.dtype(f"{order}{TYPES[code]}")
    voxels = np.frombuffer(data, dtype, count, int(offset)).reshape(shape, order="F")
    if slope not in (0.0, 1.0) or (slope and intercept):
        voxels = voxels * np.float32(slope) + np.float32(intercept)
    return voxels.astype(voxels.dtype.newbyteorder("=")), _affine(data, order)


def _affine(data: bytes, order: str) -> Array:
    quaternion, rows = struct.unpack_from(f"{order}2h", data, 252)
    affine = np.eye(4)
    if rows > 0:
        values = struct.unpack_from(f"{order}12f", data, 280)
        affine[:3] = np.reshape(values, (3, 4))
    elif quaternion > 0:
        affine[:3] = _of_quaternion(data, order)
    else:
        affine[:3, :3] = np.diag(struct.unpack_from(f"{order}3f", data, 80))
    return affine


def _of_quaternion(data: bytes, order: str) -> Array:
    b, c, d, *shift = struct.unpack_from(f"{order}6f", data, 256)
    handed, *spacing = struct.unpack_from(f"{order}4f", data, 76)
    a = max(0.0, 1.0 - b * b - c * c - d * d) ** 0.5
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    spacing[2] *= -1.0 if handed < 0 else 1.0
    return np.column_stack([rotation * np.array(spacing), np.array(shift)])
