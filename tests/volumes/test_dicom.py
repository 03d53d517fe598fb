import struct
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from openjpeg.utils import encode_array
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SegmentationStorage,
    generate_uid,
)

from trivox.errors import DataError, FormatError, GeometryError
from trivox.volumes.dicom import list_series, read_dicom, read_dicom_header
from trivox.volumes.formats import read_header, read_volume, write_volume
from trivox.volumes.volume import Volume

AXIAL = (1, 0, 0, 0, 1, 0)
OBLIQUE = (
    0.99999996693059,
    -4.81874506e-05,
    -0.00025261984,
    2.046187e-10,
    0.98228909079532,
    -0.1873716683613,
)
ROWS, COLUMNS = 36, 48  # openjpeg encodes nothing smaller than 32


def pixels_of(number):
    return (
        np.random.default_rng(number)
        .integers(0, 4096, (ROWS, COLUMNS))
        .astype(np.uint16)
    )


def slice_of(number, *, position=None, pixels=None, series="1.2.3", **attributes):
    """A CT slice at z = 2 * number mm, although its SliceThickness says 3."""
    pixels = pixels_of(number) if pixels is None else pixels
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = (
        generate_uid()
    )
    dataset.SeriesInstanceUID, dataset.Modality, dataset.SeriesDescription = (
        series,
        "CT",
        "thorax",
    )
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = list(position or (-10.5, 20.25, 2.0 * number))
    dataset.ImageOrientationPatient = list(AXIAL)
    dataset.PixelSpacing, dataset.SliceThickness = [0.75, 0.5], 3
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation, dataset.SamplesPerPixel = 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    return dataset


def save(folder, datasets, name="IM"):
    folder.mkdir(exist_ok=True, parents=True)
    order = np.random.default_rng(0).permutation(
        len(datasets)
    )  # file names say nothing about positions
    for file, index in enumerate(order):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            datasets[index].save_as(
                folder / f"{name}{file:03d}.dcm", enforce_file_format=True
            )
    return folder


def compress(dataset, syntax):
    """By pydicom; its JPEG 2000 encoder needs one more package than decoding does,
    hence openjpeg itself.
    """
    if syntax != JPEG2000Lossless:
        dataset.compress(syntax, generate_instance_uid=False)
        return
    frame = encode_array(
        dataset.pixel_array, bits_stored=12, photometric_interpretation=2, use_mct=False
    )
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = syntax


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
    slices = [
        slice_of(
            i,
            position=tuple((5 + 2.5 * i * normal).tolist()),
            ImageOrientationPatient=list(orientation),
        )
        for i in range(4)
    ]
    folder = save(tmp_path / "s", slices)
    assert_equals_itk(read_volume(folder), itk_series(folder))


def test_header_equals_volume_and_one_file_stands_for_its_series(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    save(folder, [slice_of(i, series="9.9") for i in range(4)], name="other")
    volume = read_volume(folder / "IM001.dcm")
    header = read_header(folder / "IM001.dcm")
    assert (
        (header.shape, header.channels, header.dtype)
        == (volume.shape, 1, volume.array.dtype)
        == ((3, 36, 48), 1, np.int16)
    )
    np.testing.assert_array_equal(header.affine, volume.affine)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless, RLELossless])
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
            dataset.PixelData = (
                np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            )
    folder = tmp_path / "s"
    folder.mkdir()
    for i, dataset in enumerate(slices):
        pydicom.dcmwrite(
            folder / f"{i}.dcm",
            dataset,
            enforce_file_format=True,
            little_endian=None,
            implicit_vr=None,
        )
    volume = read_volume(folder)
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
    volume = read_volume(
        save(
            tmp_path / "s", [slice_of(i, pixels=large, **attributes) for i in range(2)]
        )
    )
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
    np.testing.assert_array_equal(
        read_volume(save(tmp_path / "s", [signed])).array[0, 0],
        pixels.astype(int) - 1024,
    )
    overlay = slice_of(0, pixels=pixels_of(0) | 0x8000)  # an overlay in the highest bit
    np.testing.assert_array_equal(
        read_volume(save(tmp_path / "o", [overlay])).array[0, 0],
        pixels_of(0).astype(int) - 1024,
    )


def test_monochrome1_keeps_its_values(tmp_path):
    both = [
        read_volume(
            save(tmp_path / p, [slice_of(0, PhotometricInterpretation=p)])
        ).array
        for p in ("MONOCHROME1", "MONOCHROME2")
    ]
    np.testing.assert_array_equal(*both)


def test_gantry_tilt_gives_a_sheared_grid(tmp_path):
    slices = [slice_of(i, position=(0, 1.0 * i, 2.0 * i)) for i in range(4)]
    volume = read_volume(save(tmp_path / "s", slices))
    np.testing.assert_allclose((volume.affine @ [0, 0, 3, 1])[:3], [0, -3, 6])
    np.testing.assert_allclose((volume.affine @ [0, 8, 0, 1])[:3], [0, -6, 0])
    write_volume(tmp_path / "a.nii.gz", volume)
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").affine, volume.affine)


def test_gaps_are_refused_by_position_or_read_with_a_warning(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in (0, 1, 2, 5, 6)])
    for read in (read_volume, read_header):
        with pytest.raises(
            GeometryError, match=r"missing at 6\.00, 8\.00 mm.*allow_gaps"
        ):
            read(folder)
    with pytest.warns(UserWarning, match="missing at"):
        volume = read_dicom(folder, allow_gaps=True)
    assert volume.spacing == (3.0, 0.75, 0.5)
    assert read_dicom_header(folder, allow_gaps=True).shape == volume.shape


@pytest.mark.parametrize(("shift", "accepted"), [(0.01, True), (0.1, False)])
def test_uneven_slices(tmp_path, shift, accepted):
    folder = save(
        tmp_path / "s",
        [slice_of(i, position=(0, 0, 2.0 * i + shift * (i == 2))) for i in range(5)],
    )
    if accepted:
        assert read_volume(folder).spacing == pytest.approx((2, 0.75, 0.5))
    else:
        with pytest.raises(GeometryError, match="uneven distances"):
            read_volume(folder)


def test_equal_duplicates_are_dropped(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in (0, 1, 1, 2)])
    assert read_volume(folder).shape == read_header(folder).shape == (3, ROWS, COLUMNS)


def test_different_images_at_one_position_are_refused_with_what_separates_them(
    tmp_path,
):
    echoes = [
        slice_of(i, EchoTime=10 * (1 + i // 3), position=(0, 0, i % 3))
        for i in range(6)
    ]
    with pytest.raises(
        GeometryError, match=r"2 different images .* told apart by EchoTime \(10.*, 20"
    ):
        read_volume(save(tmp_path / "a", echoes))
    with pytest.raises(GeometryError, match="put each volume into a folder"):
        read_volume(
            save(tmp_path / "b", [slice_of(i, position=(0, 0, 0)) for i in range(2)])
        )


@pytest.mark.parametrize(
    "strange",
    [
        slice_of(9, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
        slice_of(9, pixels=np.zeros((8, 8), np.uint16)),
        slice_of(9, PixelSpacing=[1, 1]),
    ],
)
def test_a_minority_of_other_images_is_refused_by_name(tmp_path, strange):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    save(folder, [strange], name="odd")
    with pytest.raises(
        GeometryError, match=r"3 images of 36x48 are mixed with 1 .*odd000\.dcm.*move"
    ):
        read_volume(folder)


def test_shifted_fields_of_view_are_refused(tmp_path):
    slices = [slice_of(i, position=(30.0 * (i > 2), 0, 2.0 * i)) for i in range(5)]
    with pytest.raises(GeometryError, match="sideways"):
        read_volume(save(tmp_path / "s", slices))


def test_localizers_and_other_objects_do_not_count(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    save(
        folder,
        [slice_of(0, series="7", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])],
        name="scout",
    )
    save(folder, [slice_of(0, series="8", Modality="RTSTRUCT")], name="rt")
    segmentation = slice_of(0, series="9")
    segmentation.file_meta.MediaStorageSOPClassUID = segmentation.SOPClassUID = (
        SegmentationStorage
    )
    save(folder, [segmentation], name="seg")
    (folder / "notes.txt").write_text("not DICOM")
    (folder / "README").write_bytes(bytes(500))
    assert read_volume(folder).shape == (3, ROWS, COLUMNS)
    assert [info.uid for info in list_series(folder)] == ["1.2.3"]
    for name in ("scout000.dcm", "rt000.dcm", "seg000.dcm"):
        with pytest.raises(FormatError, match="not an image"):
            read_volume(folder / name)


def test_several_series_need_a_choice(tmp_path):
    save(tmp_path / "s" / "a", [slice_of(i, SeriesNumber=4) for i in range(3)])
    save(
        tmp_path / "s" / "b",
        [
            slice_of(i, series="9.9", SeriesNumber=5, SeriesDescription="liver")
            for i in range(2)
        ],
    )
    with pytest.raises(
        FormatError,
        match=r"2 series.*series=.*1\.2\.3 \(CT 4 'thorax', 3 images\); 9\.9",
    ):
        read_volume(tmp_path / "s")
    with pytest.raises(FormatError, match="0 series called 'x'"):
        read_dicom(tmp_path / "s", series="x")
    for choice in ("9.9", "5"):
        assert read_dicom(tmp_path / "s", series=choice).shape == (2, ROWS, COLUMNS)
    large, small = list_series(tmp_path / "s")
    assert (large.uid, large.images, large.size, large.number) == (
        "1.2.3",
        3,
        (ROWS, COLUMNS),
        "4",
    )
    assert (small.description, small.modality, len(small.files)) == ("liver", "CT", 2)


def test_blank_identifiers_are_grouped_by_plane(tmp_path):
    blank = {
        "SOPClassUID": "",
        "SOPInstanceUID": "",
        "SeriesInstanceUID": "",
        "StudyInstanceUID": "",
    }
    coronal = {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}
    slices = [slice_of(i, **blank) for i in range(3)]
    assert read_volume(save(tmp_path / "one", slices)).shape == (3, ROWS, COLUMNS)
    assert read_volume(tmp_path / "one" / "IM000.dcm").shape == (3, ROWS, COLUMNS)
    others = [slice_of(i, position=(0, i, 0), **blank, **coronal) for i in range(2)]
    two = save(save(tmp_path / "two", slices), others, name="cor")
    assert [info.uid for info in list_series(two)] == ["unnamed-1", "unnamed-2"]
    assert read_dicom(two, series="unnamed-2").shape == (2, ROWS, COLUMNS)


def enhanced(positions, **frame_attributes):
    dataset = slice_of(
        0, NumberOfFrames=len(positions), RescaleSlope=None, RescaleIntercept=None
    )
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = (
        EnhancedCTImageStorage
    )
    for name in (
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "PixelSpacing",
        "SliceThickness",
    ):
        delattr(dataset, name)
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.75, 0.5], 3
    plane.ImageOrientationPatient = list(AXIAL)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = (
        Sequence([measures]),
        Sequence([plane]),
    )
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for index, position in enumerate(positions):
        group, place, values, content = Dataset(), Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = list(position)
        values.RescaleSlope, values.RescaleIntercept = 1, -1000
        content.TemporalPositionIndex = 1 + index // 3
        group.PlanePositionSequence = Sequence([place])
        group.PixelValueTransformationSequence = Sequence([values])
        group.FrameContentSequence = Sequence([content])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.PixelData = b"".join(pixels_of(i).tobytes() for i in range(len(positions)))
    for name, value in frame_attributes.items():
        setattr(dataset, name, value)
    return dataset


def test_enhanced_multiframe_is_ordered_by_position(tmp_path):
    folder = save(tmp_path / "s", [enhanced([(0, 0, 5), (0, 0, 0), (0, 0, 2.5)])])
    volume = read_volume(folder)
    assert volume.spacing == (2.5, 0.75, 0.5)
    np.testing.assert_array_equal(
        volume.array[0], np.stack([pixels_of(i) for i in (1, 2, 0)]).astype(int) - 1000
    )
    np.testing.assert_array_equal(read_volume(folder / "IM000.dcm").array, volume.array)


def test_enhanced_time_series_and_missing_positions_are_refused(tmp_path):
    times = [(0, 0, i % 3) for i in range(6)]
    with pytest.raises(GeometryError, match="told apart by TemporalPositionIndex"):
        read_volume(save(tmp_path / "a", [enhanced(times)]))
    with pytest.raises(FormatError, match="7 frames with 6 positions"):
        read_volume(save(tmp_path / "b", [enhanced(times, NumberOfFrames=7)]))


def test_a_projection_without_position_stands_alone(tmp_path):
    views = [
        slice_of(
            i,
            Modality="DX",
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
            PixelSpacing=None,
            ImagerPixelSpacing=[0.2, 0.1],
        )
        for i in range(2)
    ]
    folder = save(tmp_path / "s", views)
    assert read_volume(folder / "IM000.dcm").shape == (1, ROWS, COLUMNS)
    assert read_volume(folder / "IM000.dcm").spacing == (3.0, 0.2, 0.1)
    with pytest.raises(FormatError, match="cannot be ordered"):
        read_volume(folder)


def test_too_large_is_refused_before_decoding(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    with pytest.raises(FormatError, match="more than the limit"):
        read_volume(folder, max_bytes=3 * ROWS * COLUMNS * 2 - 1)
    huge = slice_of(0, series="2", Rows=65535, Columns=65535)
    with pytest.raises(FormatError, match="more than the limit"):
        read_volume(save(tmp_path / "h", [huge]), max_bytes=2**30)


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEG2000Lossless])
def test_a_codestream_of_another_size_is_refused(tmp_path, syntax):
    dataset = slice_of(0)
    compress(dataset, syntax)
    dataset.Rows = ROWS + 1
    with pytest.raises(FormatError, match=r"IM000\.dcm: a compressed frame holds"):
        read_volume(save(tmp_path / "s", [dataset]))


def damaged(kind, dataset, path):
    save(path.parent, [dataset], name="whole")
    data = (path.parent / "whole000.dcm").read_bytes()
    (path.parent / "whole000.dcm").unlink()
    if kind == "pixels cut":
        data = data[:-50]
    elif kind == "header cut":
        data = data[:400]
    elif kind == "garbage":
        data = data[:132] + np.random.default_rng(1).bytes(2000)
    elif kind == "preamble only":
        data = data[:132]
    elif kind == "nested":
        for _ in range(3000):  # sequences in sequences: the parser recurses
            data += struct.pack(
                "<HH2sHI", 0x7FE1, 0x1010, b"SQ", 0, 0xFFFFFFFF
            ) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "kind", ["pixels cut", "header cut", "garbage", "preamble only", "nested"]
)
def test_a_damaged_slice_is_named(tmp_path, kind):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    damaged(kind, slice_of(3), folder / "bad.dcm")
    with pytest.raises(DataError, match=r"bad\.dcm") as caught:
        read_volume(folder)
    assert "\n" not in str(caught.value)


def test_deflated_is_refused(tmp_path):
    dataset = slice_of(0)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    with pytest.raises(FormatError, match="deflated"):
        read_volume(save(tmp_path / "s", [dataset]))


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
        ({"PixelSpacing": [0, 1]}, "not positive"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "unit vectors"),
        ({"ImagePositionPatient": [0, 0]}, "2 numbers instead of 3"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"BitsStored": 20}, "BitsStored is 20"),
        ({"BitsAllocated": 1}, "1 bits"),
        ({"PixelData": None}, "no pixel data"),
    ],
)
def test_attributes_that_make_an_image_unusable(tmp_path, attributes, problem):
    folder = save(tmp_path / "s", [slice_of(0, **attributes)])
    with pytest.raises(FormatError, match=rf"IM000\.dcm: .*{problem}"):
        read_volume(folder)


def test_folders_and_files_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.dcm").write_bytes(bytes(400))
    for path, problem in {
        "empty": "no DICOM images",
        "a.dcm": "not a DICOM file",
        "b.dcm": "file not found",
    }.items():
        for read in (read_volume, read_header):
            with pytest.raises(FormatError, match=problem):
                read(tmp_path / path)
    with pytest.raises(FormatError, match="no such folder"):
        list_series(tmp_path / "missing")


@pytest.mark.oracle
def test_real_jpeg2000_ct_with_blank_identifiers(data_root):
    folder = data_root / "dicom" / "ct-jpeg2000"
    volume = read_volume(folder)
    assert isinstance(volume, Volume)
    assert volume.shape == (20, 512, 512)
    assert volume.spacing == pytest.approx((2.0, 0.9765625, 0.9765625))
    assert volume.array.dtype == np.int16
    reader = sitk.ImageSeriesReader()
    by_height = sorted(
        folder.iterdir(),
        key=lambda f: pydicom.dcmread(f, stop_before_pixels=True).ImagePositionPatient[
            2
        ],
    )
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


def test_real_study_lists_its_series(data_root):
    found = {
        info.description: info.images
        for info in list_series(data_root / "dicom" / "mr-study")
    }
    assert found == {
        "T1post": 22,
        "T1pre_reg": 22,
        "FLAIR_reg": 22,
        "T2_reg": 22,
        "HippoCrop": 40,
    }
    with pytest.raises(FormatError, match="5 series"):
        read_volume(data_root / "dicom" / "mr-study")


def test_real_multiframe_equals_its_single_frames(data_root):
    folder = data_root / "dicom" / "dcmqi" / "24x38x3"
    single, multi = (
        read_volume(folder / "image"),
        read_volume(Path(folder / "multiframe")),
    )
    np.testing.assert_array_equal(single.array, multi.array)
    np.testing.assert_allclose(single.affine, multi.affine, atol=1e-6)
