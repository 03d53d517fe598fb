"""All formats: what is written is read back, and bad files give one clear line."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sample_volumes import SHEAR, WITH_GRID, oblique, sample
from trivox.errors import (
    FormatError,
    GeometryError,
    ResourceError,
)
from trivox.volumes.formats import (
    SUFFIXES,
    case_stem,
    read_header,
    read_labels,
    read_volume,
    write_volume,
)
from trivox.volumes.volume import Volume

WRITABLE = (*WITH_GRID, ".hdf5", ".npy")


@pytest.mark.parametrize("suffix", WITH_GRID)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.float32]
)
def test_write_then_read_is_identity(tmp_path, suffix, channels, dtype):
    volume = sample(dtype, channels)
    path = tmp_path / f"a{suffix}"
    write_volume(path, volume)
    result = read_volume(path)
    header = read_header(path)
    np.testing.assert_array_equal(result.array, volume.array)
    np.testing.assert_allclose(result.affine, volume.affine, atol=1e-4)
    assert result.array.dtype == dtype
    assert header.shape == result.shape
    assert (header.channels, header.dtype) == (result.channels, dtype)
    np.testing.assert_array_equal(header.affine, result.affine)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
)
def test_a_chain_of_all_formats_keeps_voxels_and_grid(
    tmp_path_factory, shape, spacing, angles
):
    folder = tmp_path_factory.mktemp("chain")
    first = volume = sample(shape=shape, affine=oblique(spacing, angles))
    for suffix in WITH_GRID:
        write_volume(folder / f"a{suffix}", volume)
        volume = read_volume(folder / f"a{suffix}")
    np.testing.assert_array_equal(volume.array, first.array)
    np.testing.assert_allclose(volume.affine, first.affine, atol=1e-4)


@pytest.mark.parametrize(
    ("given_type", "written_type"),
    [
        (np.bool_, np.uint8),
        (np.float16, np.float32),
        (np.float64, np.float32),
        (np.dtype(">i2"), np.int16),
    ],
)
@pytest.mark.parametrize("suffix", WITH_GRID)
def test_types_on_writing(tmp_path, suffix, given_type, written_type):
    write_volume(tmp_path / f"a{suffix}", sample(given_type))
    result = read_volume(tmp_path / f"a{suffix}").array
    assert result.dtype == written_type
    np.testing.assert_array_equal(result, sample(given_type).array)


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (0, 255, np.uint8),
        (-1, 127, np.int8),
        (-1, 200, np.int16),
        (0, 65535, np.uint16),
        (-5, 70000, np.int32),
    ],
)
def test_64_bit_integers_shrink(tmp_path, low, high, kind):
    array = np.full((1, 2, 2, 2), low, dtype=np.int64)
    array[0, 0, 0, 0] = high
    write_volume(tmp_path / "a.nii.gz", Volume(array, np.eye(4)))
    result = read_volume(tmp_path / "a.nii.gz").array
    assert result.dtype == kind
    np.testing.assert_array_equal(result, array)


def test_views_are_written_like_copies(tmp_path):
    base = sample(channels=2, shape=(4, 5, 6))
    view = base.array[:, ::-1, :, ::2].transpose(0, 3, 1, 2)
    for suffix in WITH_GRID:
        write_volume(tmp_path / f"a{suffix}", Volume(view, np.eye(4)))
        np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array, view)


def test_same_volume_same_bytes(tmp_path):
    def contents():
        for suffix in WRITABLE:
            write_volume(tmp_path / f"a{suffix}", sample(affine=np.eye(4)))
        return {suffix: (tmp_path / f"a{suffix}").read_bytes() for suffix in WRITABLE}

    first = contents()
    time.sleep(1.1)  # time stamps in headers count seconds
    assert [s for s, data in contents().items() if data != first[s]] == []


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".npy"])
def test_a_grid_that_the_format_cannot_hold_is_refused(tmp_path, suffix):
    with pytest.raises(GeometryError, match=r"write \.n"):
        write_volume(tmp_path / f"a{suffix}", sample(affine=SHEAR))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["a.hdr", "a.img", "a.nhdr", "a.mhd", "a.dcm", "a.txt", "a"]
)
def test_formats_that_are_not_written(tmp_path, name):
    with pytest.raises(FormatError, match=r"write|known are"):
        write_volume(tmp_path / name, sample())
    with pytest.raises(FormatError, match="complex"):
        write_volume(tmp_path / "a.nii", sample(np.complex64))


@pytest.mark.parametrize("suffix", WITH_GRID)
def test_too_large_is_refused_before_allocation(tmp_path, suffix):
    write_volume(tmp_path / f"a{suffix}", sample(np.float32, shape=(10, 10, 10)))
    assert read_volume(tmp_path / f"a{suffix}", max_bytes=4000).shape == (10, 10, 10)
    with pytest.raises(FormatError, match="more than the limit"):
        read_volume(tmp_path / f"a{suffix}", max_bytes=3999)


@pytest.mark.parametrize(
    "damage", ["empty", "truncated", "short", "garbage", "foreign", "missing", "folder"]
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bad_file_gives_one_clear_line(tmp_path, suffix, damage):
    path = tmp_path / f"case{suffix}"
    good = tmp_path / f"good{suffix if suffix in WITH_GRID else '.nii'}"
    write_volume(good, sample(np.float32, shape=(8, 9, 10)))
    data = good.read_bytes()
    contents = {
        "empty": b"",
        "truncated": data[: len(data) // 2],
        "short": data[:100],
        "foreign": b"\x89PNG\r\n\x1a\n" + bytes(900),
        "garbage": np.random.default_rng(0).bytes(5000),
    }
    if damage in contents:
        path.write_bytes(contents[damage])
    elif damage == "folder":
        path.mkdir()
    readers = [read_volume, read_labels]
    if damage != "truncated":
        readers.append(read_header)
    for read in readers:
        with pytest.raises(FormatError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_unknown_suffix(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(FormatError, match=r"known are \.nii\.gz"):
        read_volume(tmp_path / "a.txt")
    with pytest.raises(FormatError, match="file not found"):
        read_volume(tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.b.nii.gz", "a.b"),
        ("A.NII.GZ", "A"),
        ("x.seg.nrrd", "x.seg"),
        ("scan.1", "scan.1"),
        ("p/q/c.npz", "c"),
        ("IM1.dcm", "IM1"),
    ],
)
def test_case_stem(name, stem):
    assert case_stem(name) == stem


def test_reading_loads_a_format_library_only_when_it_is_needed():
    code = "import sys, trivox.volumes.formats; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    ).stdout.split()
    assert "trivox.volumes.formats" in loaded
    heavy = {"nibabel", "SimpleITK", "pydicom", "h5py", "torch", "scipy"}
    assert not heavy & set(loaded)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_disk_that_fills_up_with_the_last_bytes_is_noticed(tmp_path, suffix):
    """ITK does not say so where what is left in its buffer does not fit."""
    resource = pytest.importorskip("resource", reason="no limits on this system")
    values = np.random.default_rng(0).integers(0, 4, (1, 14, 14, 14))
    volume = Volume(values.astype(np.uint8), np.eye(4))
    write_volume(tmp_path / f"whole{suffix}", volume)
    size = (tmp_path / f"whole{suffix}").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 3 // 4, limits[1]))
    try:
        with pytest.raises(ResourceError, match="cannot be written"):
            write_volume(tmp_path / f"full{suffix}", volume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [f"whole{suffix}"]
