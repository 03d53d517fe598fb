"""Label maps: whole numbers, or an error that says what they are."""

import numpy as np
import pytest

from trivox.errors import (
    LabelError,
)
from trivox.volumes.formats import (
    read_labels,
)


@pytest.mark.parametrize(
    "array",
    [
        np.uint8([0, 7]),
        np.float32([0.0004, 299.9995]),
        np.float64([-1, 3]),
        np.int64([0, 5]),
    ],
)
def test_labels_near_whole_numbers_are_read(tmp_path, array):
    np.save(tmp_path / "a.npy", array.reshape(1, 1, -1))
    labels = read_labels(tmp_path / "a.npy").array
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels.ravel(), np.rint(array))


@pytest.mark.parametrize("value", [0.5, 1.002, np.nan, np.inf, 2.0**40])
def test_other_labels_are_refused(tmp_path, value):
    array = np.zeros((2, 3, 4), dtype=np.float32)
    array[1, 1, 1] = value
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(
        LabelError, match=f"whole numbers.*{value:g}".replace("+", r"\+")
    ):
        read_labels(tmp_path / "a.npy")


def test_labels_beyond_32_bits_or_with_channels_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 2, 2), 2**40))
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 2, 2), np.uint8))
    for name, problem in {"a.npy": "whole", "b.npy": "one channel"}.items():
        with pytest.raises(LabelError, match=problem):
            read_labels(tmp_path / name)
