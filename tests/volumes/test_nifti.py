"""NIfTI: what nibabel means, and no more than the header declares."""

import gzip

import nibabel
import numpy as np
import pytest

from sample_volumes import SHEAR, oblique, sample, save_nifti
from trivox.errors import (
    FormatError,
    GeometryError,
)
from trivox.volumes.formats import (
    read_header,
    read_volume,
    write_volume,
)


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


def test_gzip_members_and_padding(tmp_path):
    write_volume(tmp_path / "a.nii", sample(shape=(20, 30, 40)))
    data = (tmp_path / "a.nii").read_bytes()
    starts = range(0, len(data), 5000)
    parts = [gzip.compress(data[start : start + 5000]) for start in starts]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(parts) + bytes(100))
    np.testing.assert_array_equal(
        read_volume(tmp_path / "b.nii.gz").array, sample(shape=(20, 30, 40)).array
    )


def test_a_damaged_gzip_checksum_is_found(tmp_path):
    write_volume(tmp_path / "a.nii.gz", sample())
    data = bytearray((tmp_path / "a.nii.gz").read_bytes())
    data[-6] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(data)
    with pytest.raises(FormatError, match="incorrect data check"):
        read_volume(tmp_path / "a.nii.gz")


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


@pytest.mark.oracle
def test_real_nifti_equals_nibabel(data_root):
    for path in sorted((data_root / "abdomen-ct").glob("example*.nii.gz")):
        volume = read_volume(path)
        image = nibabel.load(path)
        np.testing.assert_array_equal(volume.affine, image.affine)
        np.testing.assert_allclose(
            volume.array[0].T, np.asarray(image.dataobj), atol=1e-3
        )
