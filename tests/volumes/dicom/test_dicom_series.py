"""Which images of a folder form a volume, and which are refused."""

import numpy as np
import pytest
from pydicom.uid import (
    SegmentationStorage,
)

from dicom_slices import COLUMNS, ROWS, enhanced, save, slice_of
from trivox.errors import FormatError, GeometryError
from trivox.volumes.choice import SeriesChoice
from trivox.volumes.dicom.reading import list_series
from trivox.volumes.formats import read_header, read_volume


def test_equal_duplicates_are_dropped(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in (0, 1, 1, 2)])
    volume = read_volume(folder)
    assert volume.shape == read_header(folder).shape == (3, ROWS, COLUMNS)
    assert volume.remarks == ("copies: 1 images that are there twice are left out",)


def test_different_images_at_one_position_are_refused_with_what_separates_them(
    tmp_path,
):
    echoes = [
        slice_of(i, EchoTime=10 * (1 + i // 3), position=(0, 0, i % 3))
        for i in range(6)
    ]
    folder = save(tmp_path / "a", echoes)
    apart = r"2 different images .* told apart by EchoTime \(10.*, 20"
    with pytest.raises(GeometryError, match=apart):
        read_volume(folder)
    alike = [slice_of(i, position=(0, 0, 0)) for i in range(2)]
    folder = save(tmp_path / "b", alike)
    with pytest.raises(GeometryError, match="put each volume into a folder"):
        read_volume(folder)


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
    mixed = r"3 images of 36x48 are mixed with 1 .*odd000\.dcm.*move"
    with pytest.raises(GeometryError, match=mixed):
        read_volume(folder)


def test_shifted_fields_of_view_are_refused(tmp_path):
    slices = [slice_of(i, position=(30.0 * (i > 2), 0, 2.0 * i)) for i in range(5)]
    with pytest.raises(GeometryError, match="sideways"):
        read_volume(save(tmp_path / "s", slices))


def test_localizers_and_other_objects_do_not_count(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    scout = slice_of(0, series="7", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    save(folder, [scout], name="scout")
    save(folder, [slice_of(0, series="8", Modality="RTSTRUCT")], name="rt")
    segmentation = slice_of(0, series="9")
    segmentation.SOPClassUID = SegmentationStorage
    segmentation.file_meta.MediaStorageSOPClassUID = SegmentationStorage
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
    liver = {"SeriesNumber": 5, "SeriesDescription": "liver"}
    save(tmp_path / "s" / "b", [slice_of(i, series="9.9", **liver) for i in range(2)])
    listed = (
        r"2 series.*--series NUMBER.*: 4 \(CT 'thorax', 3 images, 2 x 0.75 x 0.5 mm, "
        r"1\.2\.3\); 5 \(CT 'liver', 2 images"
    )
    with pytest.raises(FormatError, match=listed):
        read_volume(tmp_path / "s")
    with pytest.raises(FormatError, match="0 series are meant by --series x"):
        read_volume(tmp_path / "s", choice=SeriesChoice(series="x"))
    for wanted in ("9.9", "5"):
        volume = read_volume(tmp_path / "s", choice=SeriesChoice(series=wanted))
        assert volume.shape == (2, ROWS, COLUMNS)
    large, small = list_series(tmp_path / "s")
    assert (large.uid, large.images, large.number) == ("1.2.3", 3, "4")
    assert large.size == (ROWS, COLUMNS)
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
    assert read_volume(two, choice=SeriesChoice(series="unnamed-2")).shape == (
        2,
        ROWS,
        COLUMNS,
    )


def test_a_projection_without_position_stands_alone(tmp_path):
    projection = {
        "Modality": "DX",
        "ImagePositionPatient": None,
        "ImageOrientationPatient": None,
        "PixelSpacing": None,
        "ImagerPixelSpacing": [0.2, 0.1],
    }
    folder = save(tmp_path / "s", [slice_of(i, **projection) for i in range(2)])
    assert read_volume(folder / "IM000.dcm").shape == (1, ROWS, COLUMNS)
    assert read_volume(folder / "IM000.dcm").spacing == (3.0, 0.2, 0.1)
    with pytest.raises(FormatError, match="cannot be ordered"):
        read_volume(folder)


def test_enhanced_time_series_and_missing_positions_are_refused(tmp_path):
    times = [(0, 0, i % 3) for i in range(6)]
    with pytest.raises(GeometryError, match="told apart by TemporalPositionIndex"):
        read_volume(save(tmp_path / "a", [enhanced(times)]))
    with pytest.raises(FormatError, match="7 frames with 6 positions"):
        read_volume(save(tmp_path / "b", [enhanced(times, NumberOfFrames=7)]))


def test_real_study_lists_its_series(data_root):
    listed = list_series(data_root / "dicom" / "mr-study")
    assert {info.description: info.images for info in listed} == {
        "T1post": 22,
        "T1pre_reg": 22,
        "FLAIR_reg": 22,
        "T2_reg": 22,
        "HippoCrop": 40,
    }
    with pytest.raises(FormatError, match="5 series"):
        read_volume(data_root / "dicom" / "mr-study")
