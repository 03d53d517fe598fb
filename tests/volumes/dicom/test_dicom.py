"""DICOM series as volumes: grid and values are those of ITK."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dicom_slices import (
    AXIAL,
    COLUMNS,
    ROWS,
    compress,
    enhanced,
    pixels_of,
    save,
    slice_of,
)
from trivox.volumes.formats import read_header, read_volume, write_volume
from trivox.volumes.volume import Volume

OBLIQUE = (
    0.99999996693059,
    -4.81874506e-05,
    -0.00025261984,
    2.046187e-10,
    0.98228909079532,
    -0.1873716683613,
)


def itk_series(folder):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    return reader.Execute()


def assert_equals_itk(volume, image):
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image))
    x, y, z = image.GetSize()
    for corner in ((0, 0, 0), (x - 1, 0, 0), (0, y - 1, 0), (0, 0, z - 1)):
        point = np.array(image.TransformIndexToPhysicalPoint(corner)) * [-1, -1, 1]
        np.testing.assert_allclose((volume.affine @ [*corner, 1])[:3], point, atol=1e-3)


def test_slices_are_ordered_and_spaced_by_position(tmp_path):
    volume = read_volume(save(tmp_path / "s", [slice_of(i) for i in range(5)]))
    assert volume.array.dtype == np.int16
    assert volume.spacing == (2.0, 0.75, 0.5)
    np.testing.assert_array_equal(
        volume.array[0], np.stack([pixels_of(i) for i in range(5)]).astype(int) - 1024
    )
    np.testing.assert_allclose(volume.affine[:3, 3], [10.5, -20.25, 0])


@pytest.mark.oracle
@pytest.mark.parametrize(
    "orientation", [AXIAL, OBLIQUE, (0, 1, 0, 0, 0, -1), (-1, 0, 0, 0, -1, 0)]
)
def test_grid_equals_itk(tmp_path, orientation):
    normal = np.cross(orientation[:3], orientation[3:])
    slices = []
    for i in range(4):
        position = tuple((5 + 2.5 * i * normal).tolist())
        turned = {"ImageOrientationPatient": list(orientation)}
        slices.append(slice_of(i, position=position, **turned))
    folder = save(tmp_path / "s", slices)
    assert_equals_itk(read_volume(folder), itk_series(folder))


def test_header_equals_volume_and_one_file_stands_for_its_series(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    save(folder, [slice_of(i, series="9.9") for i in range(4)], name="other")
    volume = read_volume(folder / "IM001.dcm")
    header = read_header(folder / "IM001.dcm")
    assert header.shape == volume.shape == (3, ROWS, COLUMNS)
    assert header.channels == volume.channels == 1
    assert header.dtype == volume.array.dtype == np.int16
    np.testing.assert_array_equal(header.affine, volume.affine)


@pytest.mark.parametrize(
    "syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless, JPEGLosslessSV1]
)
def test_compressed_equals_uncompressed(tmp_path, syntax):
    slices = [slice_of(i) for i in range(3)]
    plain = read_volume(save(tmp_path / "plain", slices))
    for dataset in slices:
        compress(dataset, syntax)
    packed = read_volume(save(tmp_path / "packed", slices))
    np.testing.assert_array_equal(packed.array, plain.array)
    np.testing.assert_array_equal(packed.affine, plain.affine)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_byte_layouts(tmp_path, syntax):
    slices = [slice_of(i) for i in range(2)]
    for dataset in slices:
        dataset.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            little = np.frombuffer(dataset.PixelData, "<u2")
            dataset.PixelData = little.astype(">u2").tobytes()
    as_in_dataset = {"little_endian": None, "implicit_vr": None}
    for i, dataset in enumerate(slices):
        file = tmp_path / f"{i}.dcm"
        pydicom.dcmwrite(file, dataset, enforce_file_format=True, **as_in_dataset)
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array[0, 1], pixels_of(1).astype(int) - 1024)


def test_rescaling_differs_from_slice_to_slice(tmp_path):
    slices = [
        slice_of(i, RescaleSlope=0.5 + i, RescaleIntercept=10 * i) for i in range(3)
    ]
    volume = read_volume(save(tmp_path / "s", slices))
    assert volume.array.dtype == np.float32
    for i in range(3):
        np.testing.assert_allclose(
            volume.array[0, i], pixels_of(i) * (0.5 + i) + 10 * i, rtol=1e-6
        )


def test_mr_without_rescale_and_16_bits(tmp_path):
    attributes = {
        "RescaleSlope": None,
        "RescaleIntercept": None,
        "BitsStored": 16,
        "HighBit": 15,
    }
    large = np.full((ROWS, COLUMNS), 60_000, np.uint16)
    slices = [slice_of(i, pixels=large, **attributes) for i in range(2)]
    volume = read_volume(save(tmp_path / "s", slices))
    assert volume.array.dtype == np.int32
    assert (volume.array == 60_000).all()


def test_signed_padding_and_unused_bits(tmp_path):
    pixels = pixels_of(0).astype(np.int16) - 2000
    signed = slice_of(
        0,
        pixels=pixels.view(np.uint16),
        PixelRepresentation=1,
        BitsStored=16,
        HighBit=15,
        PixelPaddingValue=-2000,
    )
    pixels[0, 0] = -2000
    signed.PixelData = pixels.tobytes()
    plane = read_volume(save(tmp_path / "s", [signed])).array[0, 0]
    np.testing.assert_array_equal(plane, pixels.astype(int) - 1024)
    overlay = slice_of(0, pixels=pixels_of(0) | 0x8000)  # an overlay in the highest bit
    plane = read_volume(save(tmp_path / "o", [overlay])).array[0, 0]
    np.testing.assert_array_equal(plane, pixels_of(0).astype(int) - 1024)


def test_monochrome1_keeps_its_values(tmp_path):
    arrays = []
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        image = slice_of(0, PhotometricInterpretation=kind)
        arrays.append(read_volume(save(tmp_path / kind, [image])).array)
    np.testing.assert_array_equal(*arrays)


def test_gantry_tilt_gives_a_sheared_grid(tmp_path):
    slices = [slice_of(i, position=(0, 1.0 * i, 2.0 * i)) for i in range(4)]
    volume = read_volume(save(tmp_path / "s", slices))
    np.testing.assert_allclose((volume.affine @ [0, 0, 3, 1])[:3], [0, -3, 6])
    np.testing.assert_allclose((volume.affine @ [0, 8, 0, 1])[:3], [0, -6, 0])
    write_volume(tmp_path / "a.nii.gz", volume)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").affine, volume.affine)


def test_enhanced_multiframe_is_ordered_by_position(tmp_path):
    folder = save(tmp_path / "s", [enhanced([(0, 0, 5), (0, 0, 0), (0, 0, 2.5)])])
    volume = read_volume(folder)
    assert volume.spacing == (2.5, 0.75, 0.5)
    np.testing.assert_array_equal(
        volume.array[0], np.stack([pixels_of(i) for i in (1, 2, 0)]).astype(int) - 1000
    )
    np.testing.assert_array_equal(read_volume(folder / "IM000.dcm").array, volume.array)


@pytest.mark.oracle
def test_real_jpeg2000_ct_with_blank_identifiers(data_root):
    folder = data_root / "dicom" / "ct-jpeg2000"
    volume = read_volume(folder)
    assert isinstance(volume, Volume)
    assert volume.shape == (20, 512, 512)
    assert volume.spacing == pytest.approx((2.0, 0.9765625, 0.9765625))
    assert volume.array.dtype == np.int16

    def height(file):
        header = pydicom.dcmread(file, stop_before_pixels=True)
        return header.ImagePositionPatient[2]

    reader = sitk.ImageSeriesReader()
    by_height = sorted(folder.iterdir(), key=height)
    reader.SetFileNames([str(file) for file in by_height])
    assert_equals_itk(volume, reader.Execute())


@pytest.mark.oracle
@pytest.mark.parametrize(
    "name",
    [
        "chest-ct/Lung_Dx-A0002",
        "dicom/mr-study/11-T1post-18670",
        "dicom/mr-study/36468-FLAIRreg-58706",
    ],
)
def test_real_series_equal_itk(data_root, name):
    assert_equals_itk(read_volume(data_root / name), itk_series(data_root / name))


def test_real_multiframe_equals_its_single_frames(data_root):
    folder = data_root / "dicom" / "dcmqi" / "24x38x3"
    single = read_volume(folder / "image")
    multi = read_volume(folder / "multiframe")
    np.testing.assert_array_equal(single.array, multi.array)
    np.testing.assert_allclose(single.affine, multi.affine, atol=1e-6)
