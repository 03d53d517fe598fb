"""NPY, NPZ and HDF5."""

import h5py
import numpy as np
import pytest

from sample_volumes import sample
from trivox.errors import (
    DataError,
)
from trivox.volumes.formats import (
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
