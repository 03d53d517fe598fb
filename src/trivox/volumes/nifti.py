"""NIfTI-1 and -2: read straight into the final array, never inflating more than the
header declares.

The header's meaning comes from nibabel; the voxels do not, because it goes through
float64 and inflates without limit. NIfTI stores x fastest, so the bytes in file order
are already a C-contiguous `(c, z, y, x)`.
"""

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import Nifti1Header, Nifti2Header
from nibabel import load as load_pair
from nibabel.imageglobals import logger
from numpy.typing import NDArray

from trivox.errors import FormatError
from trivox.volumes.header import Header, kept_dtype, require_size
from trivox.volumes.headers.nifti_grid import MM_OF_UNIT, Placement, placement_of
from trivox.volumes.headers.streams import (
    MAX_DEFLATE_RATIO,
    TOO_MUCH,
    Inflated,
    Source,
    require_length,
    skip,
    take,
    take_values,
)
from trivox.volumes.volume import Array, Shape, Volume, spacing_of

_GZIP_LEVEL = 3
"""Against the default of 6: 2.5 times as fast; a CT grows by 1 %, a (small) label map
by 80 %.
"""
_Scaling = tuple[float | None, float | None]


def header(path: Path) -> Header:
    """Shape, affine, channels and type, from the first kilobytes of the file."""
    if _is_pair(path):
        return _describe_pair(_loaded_pair(path))[0]
    with _opened(path) as source:
        return _describe_single(_raw_header(source)[0])[0]


def read(path: Path, *, max_bytes: int) -> Volume:
    """Read `.nii`, `.nii.gz` or a `.hdr`/`.img` pair; `FormatError` if it holds fewer
    or more bytes than declared.
    """
    if _is_pair(path):
        return _read_pair(path, max_bytes=max_bytes)
    with _opened(path) as source:
        raw, consumed = _raw_header(source)
        described, unit_mm = _describe_single(raw)
        stored = raw.get_data_dtype()
        require_size(path, described, max_bytes=max_bytes, itemsize=stored.itemsize)
        size = (described.channels, *described.shape)
        count = math.prod(size)
        offset = max(int(raw.get_data_offset()), consumed + 4)
        require_length(path, offset + count * stored.itemsize, ratio=_ratio(path))
        skip(source, offset - consumed)
        array = np.empty(count, dtype=described.dtype)
        take_values(source, array, stored=stored)
        if source.read(1):
            raise FormatError(TOO_MUCH)
    array = _scaled(array, _scaling_of(raw)).reshape(size)
    return Volume(array, described.affine, described.remarks, unit_mm)


def write(path: Path, volume: Volume) -> None:
    """Write `.nii` or `.nii.gz`: 3-D, or 4-D for channels; the affine as sform and, if
    not sheared, as qform, in the volume's own unit.
    """
    with path.open("wb") as file:
        if not path.name.lower().endswith(".gz"):
            for part in _parts(volume):
                file.write(part)
            return
        # its gzip header holds no time and no name
        deflate = zlib.compressobj(_GZIP_LEVEL, wbits=31)
        for part in _parts(volume):
            file.write(deflate.compress(part))
        file.write(deflate.flush())


def _parts(volume: Volume) -> Iterator[bytes | memoryview]:
    """The bytes of a file, plane by plane."""
    yield _new_header(volume).binaryblock + bytes(4)  # four zeros: no extensions
    for channel in volume.array:
        for plane in channel:
            yield np.ascontiguousarray(plane).data.cast("B")


def _ratio(path: Path) -> int:
    """How much more than its own bytes a file can hold."""
    return MAX_DEFLATE_RATIO if path.name.lower().endswith(".gz") else 1


def _is_pair(path: Path) -> bool:
    return path.suffix.lower() in (".hdr", ".img")


@contextmanager
def _opened(path: Path) -> Iterator[Source]:
    packed = path.name.lower().endswith(".gz")
    with path.open("rb") as file:
        magic = file.read(2)
        file.seek(0)
        if packed and magic != b"\x1f\x8b":
            raise FormatError(
                "not a gzip file although its name ends in .gz; "
                "rename it if it is a plain .nii"
            )
        if not packed and magic == b"\x1f\x8b":
            raise FormatError(
                "gzip-compressed although its name does not end in .gz; "
                "rename it to .nii.gz"
            )
        yield Inflated(file) if packed else file


def _raw_header(source: Source) -> tuple[Any, int]:
    """The nibabel header, checked to be one of a single-file NIfTI, and the bytes that
    it took.
    """
    block = bytearray(348)
    take(source, memoryview(block))
    sizes = {int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")}
    if 540 in sizes:
        rest = bytearray(540 - 348)
        take(source, memoryview(rest))
        raw = Nifti2Header(bytes(block + rest), check=False)
    elif 348 in sizes:
        raw = Nifti1Header(bytes(block), check=False)
    else:
        raise FormatError("not a NIfTI file; check which program wrote it")
    if not bytes(raw["magic"].tobytes()).startswith((b"n+1", b"n+2")):
        raise FormatError(
            "not a single-file NIfTI (its magic is not n+1 or n+2); "
            "give Analyze files as .hdr"
        )
    return raw, len(raw.binaryblock)


def _describe_single(raw: Any) -> tuple[Header, float]:
    """The header, and the length in mm of its unit."""
    return _describe(raw, placement_of(raw), _scaling_of(raw))


def _loaded_pair(path: Path) -> Any:
    """What nibabel makes of a pair, without what it says to the terminal about damaged
    headers.
    """
    spoke = logger.disabled
    logger.disabled = True
    try:
        return load_pair(path)
    finally:
        logger.disabled = spoke


def _describe_pair(image: Any) -> tuple[Header, float]:
    # Loading removes the scaling from the header and may take the affine from a .mat
    # file (SPM).
    scaling = (image.dataobj.slope, image.dataobj.inter)
    if isinstance(image.header, Nifti1Header):
        return _describe(image.header, placement_of(image.header), scaling)
    affine = np.asarray(image.affine, dtype=np.float64)
    return _describe(image.header, Placement(affine, 1.0, ()), scaling)


def _describe(
    raw: Any, placement: Placement, scaling: _Scaling
) -> tuple[Header, float]:
    stored = raw.get_data_dtype()
    if stored.kind not in "iuf" or stored.itemsize > 8:
        raise FormatError(
            f"voxels of type {stored} (colour, complex or extended) are not supported; "
            "convert the file"
        )
    shape, channels = _spatial([int(n) for n in raw.get_data_shape()])
    dtype = kept_dtype(stored) if _is_identity(scaling) else np.dtype(np.float32)
    remarks = placement.remarks
    if math.isinf(raw.get("scl_slope", 0)):
        remarks += ("scl_slope is infinite: values are read as they are stored",)
    header = Header(shape, placement.affine, channels, dtype, remarks)
    return header, placement.unit_mm


def _spatial(size: list[int]) -> tuple[Shape, int]:
    """`(z, y, x)` and channels from `(x, y, z, t, c, ...)`, where t or c must be 1."""
    while len(size) > 3 and size[-1] == 1:
        size.pop()
    if len(size) == 5 and size[3] == 1:
        del size[3]
    if not 2 <= len(size) <= 4:
        raise FormatError(
            f"an image of size {size} is not 3-D with one kind of channel; "
            "split it into 3-D or 4-D files"
        )
    missing = [1] * (4 - len(size))
    x, y, z, channels = [*size, *missing]
    return (z, y, x), channels


def _scaling_of(raw: Any) -> _Scaling:
    """Slope and intercept; None for a slope of 0, which the standard calls unset, and
    for one that is no number.
    """
    slope = float(raw["scl_slope"])
    intercept = float(raw["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return None, None
    if not math.isfinite(intercept):
        raise FormatError(
            f"the header scales its values by {slope:g} and adds {intercept}; repair "
            "scl_slope and scl_inter"
        )
    return slope, intercept


def _is_identity(scaling: _Scaling) -> bool:
    """Whether values are as stored."""
    slope, intercept = scaling
    return slope is None or (slope == 1 and not intercept)


def _scaled(array: Array, scaling: _Scaling) -> Array:
    """Values as the header scales them, in place."""
    slope, intercept = scaling
    if not _is_identity(scaling):
        with np.errstate(over="ignore", invalid="ignore"):
            array *= np.float32(slope)
            array += np.float32(intercept or 0)
    return array


def _read_pair(path: Path, *, max_bytes: int) -> Volume:
    image = _loaded_pair(path)
    described, unit_mm = _describe_pair(image)
    itemsize = image.get_data_dtype().itemsize
    require_size(path, described, max_bytes=max_bytes, itemsize=itemsize)
    # nibabel maps the file; nothing is copied yet
    stored = np.asarray(image.dataobj.get_unscaled()).T
    stored = stored.reshape(described.channels, *described.shape)
    with np.errstate(over="ignore"):
        array = stored.astype(described.dtype, order="C")
    scaling = (image.dataobj.slope, image.dataobj.inter)
    scaled = _scaled(array, scaling)
    return Volume(scaled, described.affine, described.remarks, unit_mm)


def _new_header(volume: Volume) -> Any:
    size = (*volume.shape[::-1], volume.channels)
    raw = Nifti2Header() if max(size) > np.iinfo(np.int16).max else Nifti1Header()
    raw.set_data_dtype(volume.array.dtype)
    raw.set_data_shape(size if volume.channels > 1 else size[:3])
    raw["vox_offset"] = len(raw.binaryblock) + 4
    unit = next((code for code, mm in MM_OF_UNIT.items() if mm == volume.unit_mm), 2)
    affine = volume.affine.copy()
    affine[:3] /= MM_OF_UNIT[unit]
    raw["xyzt_units"] = unit
    raw["scl_slope"] = 1
    raw["scl_inter"] = 0
    raw["pixdim"][1:4] = spacing_of(affine)[::-1]
    if not _sheared(affine):
        raw.set_qform(affine, code=1)
    raw.set_sform(affine, code=1)
    return raw


def _sheared(affine: NDArray[np.float64]) -> bool:
    directions = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return bool(np.abs(directions.T @ directions - np.eye(3)).max() > 1e-5)
