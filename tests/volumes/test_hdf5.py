"""HDF5: nothing outside the file, and no more than it can hold."""

import h5py
import numpy as np
import pytest

from trivox.errors import FormatError
from trivox.volumes.formats import read_header, read_volume

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def refused(path, words):
    for read in (read_header, read_volume):
        with pytest.raises(FormatError, match=words):
            read(path)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"chunks": (1, 2, 5)},
        {"compression": "gzip", "shuffle": True},
        {"compression": "lzf", "fletcher32": True},
    ],
)
@pytest.mark.parametrize("version", ["earliest", "latest"])
def test_what_h5py_writes_is_read(tmp_path, options, version):
    with h5py.File(tmp_path / "a.h5", "w", libver=version) as file:
        file.create_dataset("image", data=ARRAY, **options)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.h5").array[0], ARRAY)


def test_values_in_other_files_are_refused(tmp_path):
    secret = tmp_path / "secret.raw"
    secret.write_bytes(ARRAY.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        outside = [(str(secret), 0, ARRAY.nbytes)]
        file.create_dataset("image", ARRAY.shape, ARRAY.dtype, external=outside)
    refused(tmp_path / "a.h5", r"a\.h5: .*keeps its values in other files")
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["image"] = ARRAY
    layout = h5py.VirtualLayout(ARRAY.shape, ARRAY.dtype)
    layout[...] = h5py.VirtualSource(tmp_path / "source.h5", "image", ARRAY.shape)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("image", layout)
    refused(tmp_path / "b.h5", "keeps its values in other files")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["image"] = h5py.ExternalLink(tmp_path / "source.h5", "image")
    refused(tmp_path / "c.h5", r"holds arrays \[\]")


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((1000, 1000, 1000), {}),
        ((1000, 1000, 1000), {"chunks": (1, 10, 10), "compression": "gzip"}),
        ((3, 4, 5), {"chunks": (300, 400, 500), "maxshape": (None,) * 3}),
        ((100_000, 100_000, 100_000), {"chunks": (1, 10, 10)}),
    ],
)
def test_more_values_than_the_file_can_hold_are_refused(tmp_path, shape, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("image", shape, "f8", **options)
    refused(tmp_path / "a.h5", r"fewer bytes|chunk")


def test_filters_that_h5py_does_not_write_are_refused(tmp_path):
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((1, 4, 5))
    for _ in range(3):
        created.set_deflate(9)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple(ARRAY.shape)
        kind = h5py.h5t.NATIVE_INT16
        dataset = h5py.h5d.create(file.id, b"image", kind, space, created)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, ARRAY)
    refused(tmp_path / "a.h5", "packed by filters")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("image", data=ARRAY, scaleoffset=0, chunks=True)
    refused(tmp_path / "b.h5", "packed by filters")


def test_attributes_that_are_no_grid_are_refused(tmp_path):
    for number, value in enumerate((np.ones(5_000), "1 1 1", np.ones(5))):
        path = tmp_path / f"{number}.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("image", data=ARRAY).attrs["spacing"] = value
        with pytest.raises(Exception, match="'spacing'"):
            read_volume(path)
