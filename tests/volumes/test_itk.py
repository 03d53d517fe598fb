"""NRRD and MetaImage: what ITK means."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from sample_volumes import oblique, sample
from trivox.errors import (
    GeometryError,
)
from trivox.volumes.formats import (
    read_volume,
    write_volume,
)


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "a.nhdr"])
def test_itk_files_lie_where_itk_puts_them(tmp_path, name):
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.float64).reshape(3, 4, 5))
    image.SetSpacing([0.7, 0.9, 2.5])
    image.SetOrigin([5.5, -3, 9])
    turned = Rotation.from_euler("xyz", (10, 20, 30), degrees=True).as_matrix()
    image.SetDirection(turned.ravel().tolist())
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
    axis = sitk.GetImageFromArray(four, isVector=False)
    sitk.WriteImage(axis, str(tmp_path / f"t{suffix}"))
    vectors = sitk.GetImageFromArray(np.moveaxis(four, 0, -1), isVector=True)
    sitk.WriteImage(vectors, str(tmp_path / f"v{suffix}"))
    for name in "tv":
        array = read_volume(tmp_path / f"{name}{suffix}").array
        np.testing.assert_array_equal(array, four)


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


@pytest.mark.oracle
def test_real_nrrd_equals_itk(data_root):
    path = data_root / "dicom" / "slicer-nrrd" / "CTChest4.nrrd"
    volume = read_volume(path)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    corner = np.array(image.TransformIndexToPhysicalPoint((127, 127, 33))) * [-1, -1, 1]
    np.testing.assert_allclose(
        (volume.affine @ [127, 127, 33, 1])[:3], corner, atol=1e-6
    )
