"""Plain arrays: NPY, NPZ and HDF5, `(z, y, x)` or `(c, z, y, x)`; the last two may
carry `spacing` or `affine`.
"""

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
_MAX_SIDE_VALUES = 16  # an affine; nothing larger is read beside the array


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
    if path.suffix.lower() in (".h5", ".hdf5"):
        array = _read_hdf5(path, described.dtype)
    elif path.suffix.lower() == ".npz":
        with zipfile.ZipFile(path) as archive, archive.open(_member(archive)) as stream:
            array = _read_npy(stream, described.dtype)
    else:
        with path.open("rb") as stream:
            if path.stat().st_size < described.channels * int(
                np.prod(described.shape, dtype=np.int64)
            ):
                raise FormatError(
                    "holds fewer bytes than its header declares; it is truncated, copy it again"
                )
            array = _read_npy(stream, described.dtype)
    return Volume(array.reshape(described.channels, *described.shape), described.affine)


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
            options = (
                {"compression": "gzip", "compression_opts": 3, "shuffle": True}
                if array.size
                else {}
            )
            file.create_dataset(
                "image", data=array, track_times=False, **options
            ).attrs["affine"] = volume.affine


def _describe(
    shape: tuple[int, ...], stored: np.dtype[Any], side: Callable[[str], Any]
) -> Header:
    if not 2 <= len(shape) <= 4:
        raise FormatError(
            f"an array of shape {shape} is not (z, y, x) or (c, z, y, x); reshape it"
        )
    c, z, y, x = (*([1] * (4 - len(shape))), *(int(n) for n in shape))
    spatial: Shape = (z, y, x)
    return Header(spatial, _affine(side), c, kept_dtype(stored))


def _affine(side: Callable[[str], Any]) -> NDArray[np.float64]:
    affine, spacing = side("affine"), side("spacing")
    if affine is not None:
        return np.asarray(affine, dtype=np.float64)
    if spacing is None:
        return np.eye(4)
    values = np.asarray(spacing, dtype=np.float64).ravel()
    if values.shape != (3,) or not (values > 0).all():
        raise GeometryError(
            f"'spacing' holds {values.tolist()}; it must be 3 positive numbers in mm, (z, y, x)"
        )
    return affine_from_spacing((float(values[0]), float(values[1]), float(values[2])))


def _nothing(_name: str) -> None:
    return None


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, type and whether Fortran order; leaves the stream at the first value."""
    version = np.lib.format.read_magic(stream)
    read_rest = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read_rest(stream)
    return shape, dtype, fortran


def _read_npy(stream: IO[bytes], kept: np.dtype[Any]) -> Array:
    """The rest of an NPY stream, converted slab by slab so that float64 never fills
    memory.
    """
    shape, stored, fortran = _npy_header(stream)
    flat = np.empty(int(np.prod(shape, dtype=np.int64)), dtype=kept)
    step = 2**20
    with np.errstate(over="ignore"):
        for start in range(0, flat.size, step):
            count = min(step, flat.size - start)
            data = stream.read(count * stored.itemsize)
            if len(data) != count * stored.itemsize:
                raise FormatError(
                    "holds fewer bytes than its header declares; it is truncated, copy it again"
                )
            flat[start : start + count] = np.frombuffer(data, dtype=stored)
    return np.ascontiguousarray(flat.reshape(shape, order="F" if fortran else "C"))


def _choose(names: list[str], known: tuple[str, ...]) -> str:
    found = [name for name in known if name in names] or [
        n for n in names if n not in ("spacing", "affine")
    ]
    if not found or (len(found) > 1 and found[0] not in known):
        raise FormatError(
            f"holds arrays {sorted(names)[:8]}; name the one to read {' or '.join(known)}"
        )
    return found[0]


def _member(archive: zipfile.ZipFile) -> str:
    names = [
        name.removesuffix(".npy")
        for name in archive.namelist()
        if name.endswith(".npy")
    ]
    return _choose(names, _NPZ_NAMES) + ".npy"


def _side_values(archive: zipfile.ZipFile) -> Callable[[str], Any]:
    def get(name: str) -> Array | None:
        if f"{name}.npy" not in archive.namelist():
            return None
        with closing(archive.open(f"{name}.npy")) as stream:
            shape, stored, _ = _npy_header(stream)
        if (
            stored.kind not in "iuf"
            or np.prod(shape, dtype=np.int64) > _MAX_SIDE_VALUES
        ):
            raise FormatError(
                f"'{name}' is an array of {stored} {shape}; it must be 3 (spacing) or 4x4 (affine) numbers"
            )
        with closing(archive.open(f"{name}.npy")) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))

    return get


def _dataset(file: Any) -> Any:
    found: dict[str, Any] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item

    file.visititems(
        collect
    )  # follows no external links, so a file cannot smuggle in another one
    return found[_choose(list(found), _HDF5_NAMES)]


def _read_hdf5(path: Path, kept: np.dtype[Any]) -> Array:
    with h5py.File(path, "r") as file:
        dataset = _dataset(file)
        array = np.empty(dataset.shape, dtype=kept)
        if dataset.dtype.kind == "b":
            array[...] = dataset[()]
        else:
            dataset.read_direct(array)  # HDF5 converts in blocks
        return array
