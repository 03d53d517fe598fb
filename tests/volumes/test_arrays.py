"""NPY, NPZ and HDF5."""

import struct
import zipfile
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from sample_volumes import sample
from trivox.errors import (
    DataError,
    FormatError,
)
from trivox.volumes import header
from trivox.volumes.formats import (
    read_header,
    read_volume,
    write_volume,
)


@pytest.mark.parametrize("key", ["image", "label", "data", "array", "anything"])
def test_npz_keys_spacing_and_order(tmp_path, key):
    array = np.asfortranarray(np.arange(24, dtype=np.float64).reshape(2, 3, 4))
    np.savez(tmp_path / "a.npz", **{key: array}, spacing=[3.0, 2.0, 1.0])
    volume = read_volume(tmp_path / "a.npz")
    assert volume.spacing == (3, 2, 1)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], array)


@pytest.mark.parametrize("key", ["image", "label", "data", "volume", "group/anything"])
def test_hdf5_names_and_attributes(tmp_path, key):
    array = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(key, data=array).attrs["spacing"] = [3.0, 2.0, 1.0]
    volume = read_volume(tmp_path / "a.h5")
    assert volume.spacing == (3, 2, 1)
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array[0], array)


def test_arrays_that_leave_a_choice_or_hold_objects_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.zeros((2, 2, 2)), two=np.zeros((2, 2, 2)))
    np.savez(
        tmp_path / "b.npz", image=np.array([[[{}]]], dtype=object), allow_pickle=True
    )
    np.savez(tmp_path / "c.npz", image=np.zeros((2, 2, 2)), spacing=[1.0, -1.0, 1.0])
    np.save(tmp_path / "d.npy", np.array([[[None]]], dtype=object), allow_pickle=True)
    np.save(tmp_path / "e.npy", np.zeros(7))
    problems = {
        "a.npz": "name the one",
        "b.npz": "object",
        "c.npz": "positive",
        "d.npy": "object",
        "e.npy": "7",
    }
    for name, problem in problems.items():
        with pytest.raises(DataError, match=problem):
            read_volume(tmp_path / name)


def test_npy_without_grid(tmp_path):
    for array in (
        np.zeros((2, 3, 4), np.bool_),
        np.zeros((5, 2, 3, 4), ">f4"),
        np.zeros((3, 4), np.int64),
    ):
        np.save(tmp_path / "a.npy", array)
        volume = read_volume(tmp_path / "a.npy")
        assert volume.array.size == array.size
        np.testing.assert_array_equal(volume.affine, np.eye(4))
    write_volume(tmp_path / "b.npy", sample(channels=2, affine=np.eye(4)))
    np.testing.assert_array_equal(np.load(tmp_path / "b.npy"), sample(channels=2).array)


def promising(shape, kind="<f8", values=b""):
    """An NPY file whose header says more than follows."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + values


@pytest.mark.parametrize("count", [59, 480])
@pytest.mark.parametrize("shape", [(3, 4, 5), (1000, 1000, 500), (10**6, 10**6, 10**6)])
@pytest.mark.parametrize("name", ["a.npy", "a.npz", "b.npz"])
def test_a_header_that_promises_more_than_the_file_can_hold_is_refused(
    tmp_path, name, shape, count
):
    data = promising(shape, values=bytes(count))
    path = tmp_path / name
    if name.endswith(".npz"):
        packing = zipfile.ZIP_DEFLATED if name[0] == "a" else zipfile.ZIP_STORED
        with zipfile.ZipFile(path, "w", packing) as archive:
            archive.writestr("image.npy", data)
    else:
        path.write_bytes(data)
    if (shape, count) == ((3, 4, 5), 480):
        assert read_volume(path).shape == shape
        return
    for read in (read_header, read_volume):
        with pytest.raises(FormatError, match=rf"{name}: .*(fewer bytes|limit)"):
            read(path)


@pytest.mark.parametrize("text", ["(" * 4000, "{'descr': " * 500, "1" * 9000, "[]"])
def test_a_header_that_is_no_header_is_one_line(tmp_path, text):
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(FormatError, match=r"a\.npy: ") as raised:
        read_volume(tmp_path / "a.npy")
    assert "\n" not in str(raised.value)


def test_other_packings_of_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("image.npy", promising((1, 1, 1), values=bytes(8)))
    with pytest.raises(FormatError, match="unusual way"):
        read_volume(tmp_path / "a.npz")


def test_more_than_is_free_in_memory_is_refused_before_it_is_taken(
    tmp_path, monkeypatch
):
    free = SimpleNamespace(available=2**28)
    monkeypatch.setattr(header.psutil, "virtual_memory", lambda: free)
    (tmp_path / "a.npy").write_bytes(promising((100, 1000, 1000), "<i4"))
    with pytest.raises(FormatError, match=r"0\.373 GiB, and 0\.25 GiB of memory are"):
        read_volume(tmp_path / "a.npy")
