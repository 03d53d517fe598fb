"""HDF5: one dataset `(z, y, x)` or `(c, z, y, x)` with attributes `spacing` or `affine`.

The format can keep values in other files and name any filter to decode them; both are
refused before a value is read.
"""

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from trivox.errors import FormatError
from trivox.volumes.arrays import (
    MAX_SIDE_VALUES,
    TRUNCATED,
    choose_array,
    describe_array,
)
from trivox.volumes.header import Header, require_size, require_voxels
from trivox.volumes.headers.streams import MAX_DEFLATE_RATIO
from trivox.volumes.volume import Array, Volume

_NAMES = ("image", "label", "data", "volume")
_COMPRESSED = {"compression": "gzip", "compression_opts": 3, "shuffle": True}
_GZIP = 1
_LZF = 32_000
_FILTERS = (_GZIP, 2, 3, _LZF)
"""Those two, shuffling, and check sums: what h5py writes."""


def header(path: Path) -> Header:
    """Shape, affine, channels and type, from the dataset's header alone."""
    with h5py.File(path, "r") as file:
        return _described(path, _dataset(file))


def read(path: Path, *, max_bytes: int) -> Volume:
    """Read `.h5` or `.hdf5`; raises `FormatError` for values that lie in other files,
    for filters that h5py does not write, and for more values than the file can hold.
    """
    with h5py.File(path, "r") as file:
        dataset = _dataset(file)
        described = _described(path, dataset)
        require_size(path, described, max_bytes=max_bytes)
        array = _values(dataset, described.dtype)
    size = (described.channels, *described.shape)
    return Volume(array.reshape(size), described.affine, described.remarks)


def write(path: Path, volume: Volume) -> None:
    """Write `(z, y, x)`, or `(c, z, y, x)` if there are channels, as `image` with the
    attribute `affine`.
    """
    array = volume.array[0] if volume.channels == 1 else volume.array
    with h5py.File(path, "w", track_order=False) as file:
        options = dict(_COMPRESSED) if array.size else {}
        image = file.create_dataset("image", data=array, track_times=False, **options)
        image.attrs["affine"] = volume.affine


def _dataset(file: Any) -> Any:
    datasets: dict[str, object] = {}

    def collect(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[name] = item

    # follows no external links, so a file cannot smuggle in another one
    file.visititems(collect)
    return datasets[choose_array(list(datasets), _NAMES)]


def _described(path: Path, dataset: Any) -> Header:
    described = describe_array(
        dataset.shape, dataset.dtype, lambda name: _side(dataset, name)
    )
    require_voxels(path, described)
    if dataset.external is not None or dataset.is_virtual:
        raise FormatError(
            f"'{dataset.name}' keeps its values in other files; write them into this "
            "one"
        )
    _require_filters(dataset)
    _require_kept(path, dataset)
    return described


def _side(dataset: Any, name: str) -> Array | None:
    """An attribute of a few numbers, if it is there."""
    if name not in dataset.attrs:
        return None
    attribute = dataset.attrs.get_id(name)
    if (
        attribute.dtype.kind not in "iuf"
        or math.prod(attribute.shape) > MAX_SIDE_VALUES
    ):
        raise FormatError(
            f"'{name}' is an attribute of {attribute.dtype} {attribute.shape}; it must be 3 "
            "(spacing) or 4x4 (affine) numbers"
        )
    return np.asarray(dataset.attrs[name])


def _require_filters(dataset: Any) -> None:
    created = dataset.id.get_create_plist()
    filters = [created.get_filter(index)[0] for index in range(created.get_nfilters())]
    compressions = [code for code in filters if code in (_GZIP, _LZF)]
    if len(compressions) > 1 or not set(filters) <= set(_FILTERS):
        raise FormatError(
            f"'{dataset.name}' is packed by filters {filters}; only gzip or lzf can be "
            "read, write it again with one of them"
        )


def _require_kept(path: Path, dataset: Any) -> None:
    """Raise `FormatError` where the file cannot hold what the dataset declares, or a
    single chunk of it.
    """
    stored = min(dataset.id.get_storage_size(), path.stat().st_size)
    chunks = dataset.chunks
    if chunks is not None:
        stored *= MAX_DEFLATE_RATIO
    largest = max(math.prod(dataset.shape), math.prod(chunks or ()))
    if largest * dataset.dtype.itemsize > stored:
        raise FormatError(TRUNCATED)


def _values(dataset: Any, kept: np.dtype[Any]) -> Array:
    array = np.empty(dataset.shape, dtype=kept)
    if dataset.dtype.kind == "b":
        array[...] = dataset[()]
    else:
        dataset.read_direct(array)  # HDF5 converts in blocks
    return array
