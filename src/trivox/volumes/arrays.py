"""Plain arrays: NPY and NPZ, `(z, y, x)` or `(c, z, y, x)`; the latter may carry
`spacing` or `affine`.
"""

import math
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from trivox.array_files import PARSER
from trivox.errors import FormatError, GeometryError
from trivox.volumes.header import Header, kept_dtype, require_size, require_voxels
from trivox.volumes.headers.streams import MAX_DEFLATE_RATIO, take_values
from trivox.volumes.volume import Array, Shape, Volume, affine_from_spacing

_NPZ_NAMES = ("image", "label", "data", "array")
MAX_SIDE_VALUES = 16
"""An affine; nothing larger is read beside the array."""
TRUNCATED = "holds fewer bytes than its header declares; it is truncated, copy it again"


def header(path: Path) -> Header:
    """Shape, affine, channels and type, from the array's header alone."""
    with _opened(path) as stored:
        described = describe_array(stored.shape, stored.dtype, stored.side)
        require_voxels(path, described)
        stored.require_kept()
        return described


def read(path: Path, *, max_bytes: int) -> Volume:
    """Read `.npy` or `.npz`; objects are refused (they would be pickled)."""
    with _opened(path) as stored:
        described = describe_array(stored.shape, stored.dtype, stored.side)
        itemsize = stored.dtype.itemsize
        require_size(path, described, max_bytes=max_bytes, itemsize=itemsize)
        stored.require_kept()
        flat = np.empty(math.prod(stored.shape), dtype=described.dtype)
        take_values(stored.stream, flat, stored=stored.dtype)
    order: Literal["F", "C"] = "F" if stored.fortran else "C"
    array = np.ascontiguousarray(flat.reshape(stored.shape, order=order))
    size = (described.channels, *described.shape)
    return Volume(array.reshape(size), described.affine, described.remarks)


def write(path: Path, volume: Volume) -> None:
    """Write `(z, y, x)`, or `(c, z, y, x)` if there are channels, as `image`, and
    `affine` beside it (not in NPY).
    """
    array = volume.array[0] if volume.channels == 1 else volume.array
    if path.suffix.lower() == ".npz":
        np.savez_compressed(path, image=array, affine=volume.affine)
        return
    if not np.array_equal(volume.affine, np.eye(4)):
        raise GeometryError(
            f"{path}: .npy cannot hold spacing and orientation; write .npz or .nii.gz"
        )
    np.save(path, array, allow_pickle=False)


@dataclass(frozen=True, eq=False)
class _Stored:
    """An array in a file: its stream stands at the first value, of which `room` bytes
    can follow; side: gives what stands beside it, by name.
    """

    stream: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    room: int
    side: Callable[[str], Any]

    def require_kept(self) -> None:
        """Raise `FormatError` for more values than the file can hold."""
        if math.prod(self.shape) * self.dtype.itemsize > self.room:
            raise FormatError(TRUNCATED)


@contextmanager
def _opened(path: Path) -> Iterator[_Stored]:
    if path.suffix.lower() == ".npy":
        with path.open("rb") as stream:
            header = _npy_header(stream)
            room = path.stat().st_size - stream.tell()
            yield _Stored(stream, *header, room, _nothing)
        return
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(_member(archive))
        packed = min(member.compress_size, path.stat().st_size)
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError(
                f"'{member.filename}' is packed in an unusual way; save the file with "
                "numpy.savez_compressed"
            )
        room = min(member.file_size, packed * MAX_DEFLATE_RATIO)
        with archive.open(member) as stream:
            header = _npy_header(stream)
            yield _Stored(stream, *header, room, _side_values(archive))


def describe_array(
    shape: tuple[int, ...], stored: np.dtype[Any], side: Callable[[str], Any]
) -> Header:
    """What an array `(z, y, x)` or `(c, z, y, x)` is as a volume; side: gives `affine`
    or `spacing` beside it, or None.
    """
    if not 2 <= len(shape) <= 4:
        raise FormatError(
            f"an array of shape {shape} is not (z, y, x) or (c, z, y, x); reshape it"
        )
    missing = [1] * (4 - len(shape))
    channels, z, y, x = [*missing, *shape]
    spatial: Shape = (int(z), int(y), int(x))
    return Header(spatial, _affine(side), int(channels), kept_dtype(stored))


def _affine(side: Callable[[str], Any]) -> NDArray[np.float64]:
    affine = side("affine")
    if affine is not None:
        return np.asarray(affine, dtype=np.float64)
    spacing = side("spacing")
    if spacing is None:
        return np.eye(4)
    values = np.asarray(spacing, dtype=np.float64).ravel()
    if values.shape != (3,) or not (values > 0).all():
        raise GeometryError(
            f"'spacing' holds {values.tolist()}; it must be 3 positive numbers in mm, "
            "(z, y, x)"
        )
    z, y, x = (float(step) for step in values)
    return affine_from_spacing((z, y, x))


def _nothing(_name: str) -> None:
    return None


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and whether Fortran order; leaves the stream at the first value."""
    first_version = np.lib.format.read_magic(stream) == (1, 0)
    parse = np.lib.format.read_array_header_2_0
    if first_version:
        parse = np.lib.format.read_array_header_1_0
    try:
        with PARSER:
            shape, fortran, dtype = parse(stream)
    except MemoryError as error:  # of deep nesting, whatever memory there is
        raise FormatError("no header of NPY; the file is damaged") from error
    if min(shape, default=0) < 0:
        raise FormatError(f"the header declares a shape of {shape}; it is damaged")
    return shape, dtype, fortran


def choose_array(names: list[str], known: tuple[str, ...]) -> str:
    """The array to read: the first known name, else the only one there is; raises
    `FormatError` where that leaves a choice.
    """
    for name in known:
        if name in names:
            return name
    candidates = [name for name in names if name not in ("spacing", "affine")]
    if len(candidates) != 1:
        raise FormatError(
            f"holds arrays {sorted(names)[:8]}; "
            f"name the one to read {' or '.join(known)}"
        )
    return candidates[0]


def _member(archive: zipfile.ZipFile) -> str:
    files = [name for name in archive.namelist() if name.endswith(".npy")]
    names = [name.removesuffix(".npy") for name in files]
    return choose_array(names, _NPZ_NAMES) + ".npy"


def _side_values(archive: zipfile.ZipFile) -> Callable[[str], Any]:
    def get(name: str) -> Array | None:
        if f"{name}.npy" not in archive.namelist():
            return None
        with closing(archive.open(f"{name}.npy")) as stream:
            shape, stored, _ = _npy_header(stream)
        if stored.kind not in "iuf" or math.prod(shape) > MAX_SIDE_VALUES:
            raise FormatError(
                f"'{name}' is an array of {stored} {shape}; "
                "it must be 3 (spacing) or 4x4 (affine) numbers"
            )
        with PARSER, closing(archive.open(f"{name}.npy")) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))

    return get
