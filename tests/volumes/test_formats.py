import gzip
import resource
import subprocess
import sys
import time

import h5py
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from trivox.errors import (
    DataError,
    FormatError,
    GeometryError,
    LabelError,
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
from trivox.volumes.volume import Volume, affine_from_spacing

WITH_GRID = (".nii", ".nii.gz", ".nrrd", ".mha", ".npz", ".h5")
WRITABLE = (*WITH_GRID, ".hdf5", ".npy")
SHEAR = np.array(
    [
        [0.8, 0.1, 0.3, -7.25],
        [0.0, 0.9, -0.2, 11.5],
        [0.05, 0.0, 2.5, 3.125],
        [0, 0, 0, 1],
    ]
)


def oblique(spacing=(2.5, 0.7, 0.9), angles=(10, 20, 30)):
    affine = affine_from_spacing(spacing, (5.5, -3.25, 7.125))
    affine[:3, :3] = (
        Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ affine[:3, :3]
    )
    return affine


def sample(dtype=np.int16, channels=1, shape=(3, 4, 5), affine=None):
    values = np.random.default_rng(0).integers(0, 100, (channels, *shape)).astype(dtype)
    return Volume(values, oblique() if affine is None else affine)


def save_nifti(path, array, affine=None, **header):
    image = nibabel.Nifti1Image(array, oblique() if affine is None else affine)
    for key, value in header.items():
        image.header[key] = value
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("suffix", WITH_GRID)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "dtype", [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.float32]
)
def test_write_then_read_is_identity(tmp_path, suffix, channels, dtype):
    volume, path = sample(dtype, channels), tmp_path / f"a{suffix}"
    write_volume(path, volume)
    result, header = read_volume(path), read_header(path)
    np.testing.assert_array_equal(result.array, volume.array)
    np.testing.assert_allclose(result.affine, volume.affine, atol=1e-4)
    assert result.array.dtype == dtype
    assert (header.shape, header.channels, header.dtype) == (
        result.shape,
        result.channels,
        result.array.dtype,
    )
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


@pytest.mark.parametrize("affine", [SHEAR, oblique(), np.diag([-1.0, -1.0, 3.0, 1.0])])
def test_nifti_keeps_the_float32_affine_exactly(tmp_path, affine):
    for name in ("a.nii.gz", "b.nii"):
        write_volume(tmp_path / name, sample(affine=affine))
        again = read_volume(tmp_path / name)
        np.testing.assert_array_equal(
            again.affine.astype(np.float32), affine.astype(np.float32)
        )
        np.testing.assert_array_equal(
            nibabel.load(tmp_path / name).affine, again.affine
        )


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


@pytest.mark.oracle
@pytest.mark.parametrize("dtype", ["<i2", ">i2", ">f4", "<f8", "<u2"])
def test_nifti_written_by_nibabel(tmp_path, dtype):
    array = np.random.default_rng(1).integers(0, 900, (4, 5, 6)).astype(dtype)
    image = nibabel.Nifti1Image(array, SHEAR, nibabel.Nifti1Header(endianness=dtype[0]))
    image.set_data_dtype(np.dtype(dtype))
    nibabel.save(image, tmp_path / "a.nii.gz")
    result = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(result.array[0].T, array)
    np.testing.assert_array_equal(
        result.affine, nibabel.load(tmp_path / "a.nii.gz").affine
    )
    assert result.array.dtype.isnative
    assert result.array.dtype == (
        np.float32 if dtype == "<f8" else np.dtype(dtype).newbyteorder("=")
    )


@pytest.mark.oracle
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img", ".hdr"])
def test_nifti_scaling_is_applied_in_float32(tmp_path, suffix):
    image = nibabel.Nifti1Pair if suffix in (".img", ".hdr") else nibabel.Nifti1Image
    image = image(np.linspace(-3, 5, 60).reshape(3, 4, 5), oblique())
    image.set_data_dtype(np.int16)  # nibabel then chooses a slope and an intercept
    nibabel.save(image, tmp_path / f"a{suffix}")
    result = read_volume(tmp_path / f"a{suffix}")
    assert (
        result.array.dtype == read_header(tmp_path / f"a{suffix}").dtype == np.float32
    )
    np.testing.assert_allclose(
        result.array[0].T, nibabel.load(tmp_path / f"a{suffix}").get_fdata(), atol=1e-5
    )


@pytest.mark.oracle
@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 0), (1, 1), (0, 2)])
def test_nifti_affine_is_chosen_as_nibabel_does(tmp_path, qform, sform):
    image = nibabel.Nifti1Image(np.zeros((3, 4, 5), np.uint8), oblique())
    image.header.set_qform(oblique((3, 1, 1), (40, 5, 1)), code=qform)
    image.header.set_sform(oblique(), code=sform)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    np.testing.assert_array_equal(
        read_header(tmp_path / "a.nii").affine, nibabel.load(tmp_path / "a.nii").affine
    )


@pytest.mark.parametrize(
    ("size", "shape", "channels"),
    [
        ((4, 5), (1, 5, 4), 1),
        ((4, 5, 6, 1), (6, 5, 4), 1),
        ((4, 5, 6, 2), (6, 5, 4), 2),
        ((4, 5, 6, 1, 3), (6, 5, 4), 3),
    ],
)
def test_nifti_dimensions(tmp_path, size, shape, channels):
    array = np.arange(np.prod(size), dtype=np.int16).reshape(size)
    result = read_volume(save_nifti(tmp_path / "a.nii.gz", array))
    assert (result.shape, result.channels) == (shape, channels)
    np.testing.assert_array_equal(result.array.ravel(), array.ravel(order="F"))


def test_nifti2_and_large_axes(tmp_path):
    nibabel.save(
        nibabel.Nifti2Image(np.ones((3, 4, 5), np.int16), oblique()),
        tmp_path / "a.nii.gz",
    )
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").affine, oblique())
    long = sample(np.uint8, shape=(1, 1, 40_000))
    write_volume(tmp_path / "b.nii.gz", long)
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").array, long.array)
    assert nibabel.load(tmp_path / "b.nii.gz").shape == (40_000, 1, 1)


@pytest.mark.parametrize(
    "array", [np.zeros((3, 4, 5), np.complex64), np.zeros((3, 4, 5, 2, 3), np.int16)]
)
def test_nifti_that_is_not_a_volume_is_refused(tmp_path, array):
    path = save_nifti(tmp_path / "a.nii.gz", array)
    for read in (read_volume, read_header):
        with pytest.raises(FormatError, match=r"complex|split"):
            read(path)


def test_nifti_colour_is_refused(tmp_path):
    colour = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(FormatError, match="colour"):
        read_volume(save_nifti(tmp_path / "a.nii", colour))


def test_gzip_members_and_padding(tmp_path):
    write_volume(tmp_path / "a.nii", sample(shape=(20, 30, 40)))
    data = (tmp_path / "a.nii").read_bytes()
    parts = [
        gzip.compress(data[start : start + 5000]) for start in range(0, len(data), 5000)
    ]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(parts) + bytes(100))
    np.testing.assert_array_equal(
        read_volume(tmp_path / "b.nii.gz").array, sample(shape=(20, 30, 40)).array
    )


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("change", [-1, -40, 1, 10_000_000])
def test_nifti_with_fewer_or_more_bytes_than_declared_is_refused(
    tmp_path, packed, change
):
    write_volume(tmp_path / "a.nii", sample())
    data = (tmp_path / "a.nii").read_bytes()
    data = data + bytes(change) if change > 0 else data[:change]
    path = tmp_path / ("b.nii.gz" if packed else "b.nii")
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(
        FormatError, match=r"more voxels than its header|fewer bytes than"
    ):
        read_volume(path)


def test_a_damaged_gzip_checksum_is_found(tmp_path):
    write_volume(tmp_path / "a.nii.gz", sample())
    data = bytearray((tmp_path / "a.nii.gz").read_bytes())
    data[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(data)
    with pytest.raises(FormatError, match="incorrect data check"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("suffix", WITH_GRID)
def test_too_large_is_refused_before_allocation(tmp_path, suffix):
    write_volume(tmp_path / f"a{suffix}", sample(np.float32, shape=(10, 10, 10)))
    assert read_volume(tmp_path / f"a{suffix}", max_bytes=4000).shape == (10, 10, 10)
    with pytest.raises(FormatError, match="more than the limit"):
        read_volume(tmp_path / f"a{suffix}", max_bytes=3999)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_lying_header_allocates_nothing(tmp_path, name):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1200, 1000, 1000))
    data = header.binaryblock + bytes(1000)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with pytest.raises(FormatError, match="truncated"):
        read_volume(tmp_path / name)
    with pytest.raises(FormatError, match="limit of 1 GiB"):
        read_volume(tmp_path / name, max_bytes=2**30)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "a.nhdr"])
def test_itk_files_lie_where_itk_puts_them(tmp_path, name):
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.float64).reshape(3, 4, 5))
    image.SetSpacing([0.7, 0.9, 2.5])
    image.SetOrigin([5.5, -3, 9])
    image.SetDirection(
        Rotation.from_euler("xyz", (10, 20, 30), degrees=True)
        .as_matrix()
        .ravel()
        .tolist()
    )
    sitk.WriteImage(image, str(tmp_path / name))
    volume = read_volume(tmp_path / name)
    assert volume.array.dtype == np.float32
    assert volume.spacing == pytest.approx((2.5, 0.9, 0.7))
    expected = np.array(image.TransformIndexToPhysicalPoint((1, 2, 2))) * [-1, -1, 1]
    np.testing.assert_allclose((volume.affine @ [1, 2, 2, 1])[:3], expected, atol=1e-9)


@pytest.mark.oracle
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_vectors_and_a_fourth_axis_become_channels(tmp_path, suffix):
    four = np.arange(120, dtype=np.int16).reshape(2, 3, 4, 5)
    sitk.WriteImage(
        sitk.GetImageFromArray(four, isVector=False), str(tmp_path / f"t{suffix}")
    )
    sitk.WriteImage(
        sitk.GetImageFromArray(np.moveaxis(four, 0, -1), isVector=True),
        str(tmp_path / f"v{suffix}"),
    )
    for name in "tv":
        np.testing.assert_array_equal(
            read_volume(tmp_path / f"{name}{suffix}").array, four
        )


@pytest.mark.oracle
def test_itk_reads_what_is_written(tmp_path):
    volume = sample(affine=oblique())
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        write_volume(tmp_path / f"a{suffix}", volume)
        image = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.array[0])
        point = np.array(image.TransformIndexToPhysicalPoint((4, 3, 2))) * [-1, -1, 1]
        np.testing.assert_allclose(point, (volume.affine @ [4, 3, 2, 1])[:3], atol=1e-4)


def test_nrrd_without_space_is_unit_spaced_and_sheared_is_refused(tmp_path):
    head = "NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n"
    (tmp_path / "a.nrrd").write_bytes(head.encode() + b"\n" + bytes(8))
    assert read_volume(tmp_path / "a.nrrd").spacing == (1, 1, 1)
    skew = (
        "space: left-posterior-superior\nspace directions: (1,0,0) (0.3,1,0) (0,0,2)\n"
    )
    (tmp_path / "b.nrrd").write_bytes((head + skew).encode() + b"\n" + bytes(8))
    with pytest.raises(GeometryError, match=r"sheared.*NIfTI"):
        read_volume(tmp_path / "b.nrrd")


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
    for name, problem in {
        "a.npz": "name the one",
        "b.npz": "object",
        "c.npz": "positive",
        "d.npy": "object",
        "e.npy": "7",
    }.items():
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
    for read in (
        (read_volume, read_labels)
        if damage == "truncated"
        else (read_volume, read_labels, read_header)
    ):
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


def test_a_singular_affine_is_refused(tmp_path):
    path = save_nifti(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8))
    data = bytearray(path.read_bytes())
    data[280:296] = bytes(16)  # srow_x
    path.write_bytes(data)
    for read in (read_volume, read_header):
        with pytest.raises(GeometryError, match=r"a\.nii: .*singular"):
            read(path)


def test_nan_is_passed_on_to_the_checks(tmp_path):
    array = np.full((2, 2, 2), np.nan, dtype=np.float32)
    assert np.isnan(read_volume(save_nifti(tmp_path / "a.nii.gz", array)).array).all()


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


def test_the_package_imports_no_format_library():
    heavy = "{'nibabel', 'SimpleITK', 'pydicom', 'h5py', 'torch', 'scipy'}"
    code = f"import sys, trivox.volumes; found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )


@pytest.mark.oracle
def test_real_nifti_equals_nibabel(data_root):
    for path in sorted((data_root / "abdomen-ct").glob("example*.nii.gz")):
        volume, image = read_volume(path), nibabel.load(path)
        np.testing.assert_array_equal(volume.affine, image.affine)
        np.testing.assert_allclose(
            volume.array[0].T, np.asarray(image.dataobj), atol=1e-3
        )


@pytest.mark.oracle
def test_real_nrrd_equals_itk(data_root):
    path = data_root / "dicom" / "slicer-nrrd" / "CTChest4.nrrd"
    volume, image = read_volume(path), sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    corner = np.array(image.TransformIndexToPhysicalPoint((127, 127, 33))) * [-1, -1, 1]
    np.testing.assert_allclose(
        (volume.affine @ [127, 127, 33, 1])[:3], corner, atol=1e-6
    )


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_a_disk_that_fills_up_with_the_last_bytes_is_noticed(tmp_path, suffix):
    """ITK does not say so where what is left in its buffer does not fit."""
    volume = Volume(
        np.random.default_rng(0).integers(0, 4, (1, 14, 14, 14)).astype(np.uint8),
        np.eye(4),
    )
    write_volume(tmp_path / f"whole{suffix}", volume)
    size, limits = (
        (tmp_path / f"whole{suffix}").stat().st_size,
        resource.getrlimit(resource.RLIMIT_FSIZE),
    )
    resource.setrlimit(resource.RLIMIT_FSIZE, (size * 3 // 4, limits[1]))
    try:
        with pytest.raises(ResourceError, match="cannot be written"):
            write_volume(tmp_path / f"full{suffix}", volume)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in tmp_path.iterdir()] == [f"whole{suffix}"]
