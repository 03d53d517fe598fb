"""Plain arrays: NPY, NPZ and HDF5, `(z, y, x)` or `(c, z, y, x)`; the last two may
carry `spacing` or `affine`.
"""

import math
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError
from trivox.volumes.header import Header, kept_dtype, require_size
from trivox.volumes.volume import Array, Shape, Volume, affine_from_spacing

_NPZ_NAMES = ("image", "label", "data", "array")
_HDF5_NAMES = ("image", "label", "data", "volume")
_COMPRESSED = {"compression": "gzip", "compression_opts": 3, "shuffle": True}
_MAX_SIDE_VALUES = 16
"""An affine; nothing larger is read beside the array."""
_SLAB = 2**20
"""Values converted at once."""
_TRUNCATED = (
    "holds fewer bytes than its header declares; it is truncated, copy it again"
)


def header(path: Path) -> Header:
    """Shape, affine, channels and type, from the array's header alone."""
    if path.suffix.lower() in (".h5", ".hdf5"):
        with h5py.File(path, "r") as file:
            dataset = _dataset(file)
            return _describe(dataset.shape, dataset.dtype, dataset.attrs.get)
    if path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive)) as stream:
            return _describe(*_npy_header(stream)[:2], _side_values(archive))
    with path.open("rb") as stream:
        return _describe(*_npy_header(stream)[:2], _nothing)


def read(path: Path, *, max_bytes: int) -> Volume:
    """Read `.npy`, `.npz`, `.h5` or `.hdf5`; objects are refused (they would be
    pickled).
    """
    described = header(path)
    require_size(path, described, max_bytes=max_bytes)
    size = (described.channels, *described.shape)
    if path.suffix.lower() in (".h5", ".hdf5"):
        array = _read_hdf5(path, described.dtype)
    elif path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive)) as stream:
            array = _read_npy(stream, described.dtype)
    else:
        if path.stat().st_size < math.prod(size):  # a byte a voxel is the least
            raise FormatError(_TRUNCATED)
        with path.open("rb") as stream:
            array = _read_npy(stream, described.dtype)
    return Volume(array.reshape(size), described.affine)


def write(path: Path, volume: Volume) -> None:
    """Write `(z, y, x)`, or `(c, z, y, x)` if there are channels, as `image`, and
    `affine` beside it (not in NPY).
    """
    array = volume.array[0] if volume.channels == 1 else volume.array
    if path.suffix.lower() == ".npz":
        np.savez_compressed(path, image=array, affine=volume.affine)
    elif path.suffix.lower() == ".npy":
        if not np.array_equal(volume.affine, np.eye(4)):
            raise GeometryError(
                f"{path}: .npy cannot hold spacing and orientation; write .npz or .nii.gz"
            )
        np.save(path, array, allow_pickle=False)
    else:
        with h5py.File(path, "w", track_order=False) as file:
            options = dict(_COMPRESSED) if array.size else {}
            image = file.create_dataset(
                "image", data=array, track_times=False, **options
            )
            image.attrs["affine"] = volume.affine


def _describe(
    shape: tuple[int, ...], stored: np.dtype[Any], side: Callable[[str], Any]
) -> Header:
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
    if np.lib.format.read_magic(stream) == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    return shape, dtype, fortran


def _read_npy(stream: IO[bytes], kept: np.dtype[Any]) -> Array:
    """The rest of an NPY stream, converted slab by slab so that float64 never fills
    memory.
    """
    shape, stored, fortran = _npy_header(stream)
    flat = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=kept)
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, _SLAB):
            count = min(_SLAB, flat.size - start)
            data = stream.read(count * stored.itemsize)
            if len(data) != count * stored.itemsize:
                raise FormatError(_TRUNCATED)
            flat[start : start + count] = np.frombuffer(data, dtype=stored)
    return np.ascontiguousarray(flat.reshape(shape, order="F" if fortran else "C"))


def _choose(names: list[str], known: tuple[str, ...]) -> str:
    """The array to read: the first known name, else the only one there is."""
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
    return _choose(names, _NPZ_NAMES) + ".npy"


def _side_values(archive: zipfile.ZipFile) -> Callable[[str], Any]:
    def get(name: str) -> Array | None:
        if f"{name}.npy" not in archive.namelist():
            return None
        with closing(archive.open(f"{name}.npy")) as stream:
            shape, stored, _ = _npy_header(stream)
        if stored.kind not in "iuf" or math.prod(shape) > _MAX_SIDE_VALUES:
            raise FormatError(
                f"'{name}' is an array of {stored} {shape}; "
                "it must be 3 (spacing) or 4x4 (affine) numbers"
            )
        with closing(archive.open(f"{name}.npy")) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))

    return get


def _dataset(file: Any) -> Any:
    datasets: dict[str, object] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name] = item

    # follows no external links, so a file cannot smuggle in another one
    file.visititems(collect)
    return datasets[_choose(list(datasets), _HDF5_NAMES)]


def _read_hdf5(path: Path, kept: np.dtype[Any]) -> Array:
    with h5py.File(path, "r") as file:
        dataset = _dataset(file)
        array = np.empty(dataset.shape, dtype=kept)
        if dataset.dtype.kind == "b":
            array[...] = dataset[()]
        else:
            dataset.read_direct(array)  # HDF5 converts in blocks
        return array
