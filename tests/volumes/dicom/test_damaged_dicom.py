"""DICOM files that cannot be used: one line that names the file."""

import os
import struct

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
)

from dicom_slices import (
    COLUMNS,
    ROWS,
    compress,
    save,
    slice_of,
)
from trivox.errors import DataError, FormatError
from trivox.volumes.choice import SeriesChoice
from trivox.volumes.dicom import files
from trivox.volumes.dicom.reading import list_series
from trivox.volumes.formats import read_header, read_volume


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
        sequence = struct.pack("<HH2sHI", 0x7FE1, 0x1010, b"SQ", 0, 0xFFFFFFFF)
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        data += 3000 * (sequence + item)  # in each other: the parser recurses
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


def test_deflated_is_read_and_does_not_inflate_without_limit(tmp_path, monkeypatch):
    dataset = slice_of(0)
    plain = read_volume(save(tmp_path / "p", [dataset]))
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    folder = save(tmp_path / "s", [dataset])
    np.testing.assert_array_equal(read_volume(folder).array, plain.array)
    monkeypatch.setattr(files, "_INFLATED", 1000)
    with pytest.raises(FormatError, match=r"IM000\.dcm: its deflated content"):
        read_volume(folder)


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
        ({"PixelSpacing": [0, 1]}, "not positive"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "unit vectors"),
        ({"ImagePositionPatient": [0, 0]}, "2 numbers instead of 3"),
        ({"RescaleSlope": 0}, "RescaleSlope is 0"),
        ({"RescaleSlope": "1e-300"}, "RescaleSlope is 1e-300, which would erase"),
        ({"RescaleSlope": "1e308"}, "beyond all measure"),
        ({"RescaleIntercept": "-1e300"}, "RescaleSlope is 1, which would erase"),
        ({"RescaleSlope": "nan"}, "RescaleSlope is not finite"),
        ({"RescaleIntercept": "inf"}, "RescaleIntercept is not finite"),
        ({"Rows": 30}, "the size in the header is wrong"),
        ({"Columns": 47}, "the size in the header is wrong"),
        ({"BitsAllocated": 8, "BitsStored": 8}, "the size in the header is wrong"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "colour"),
        ({"BitsStored": 20}, "BitsStored is 20"),
        ({"BitsAllocated": 1}, "1 bits"),
        ({"PixelData": None}, "no pixel data"),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_attributes_that_make_an_image_unusable(tmp_path, attributes, problem):
    folder = save(tmp_path / "s", [slice_of(0, **attributes)])
    with pytest.raises(FormatError, match=rf"IM000\.dcm: .*{problem}"):
        read_volume(folder)


def test_folders_and_files_without_images(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.dcm").write_bytes(bytes(400))
    problems = {
        "empty": "no DICOM images",
        "a.dcm": "not a DICOM file",
        "b.dcm": "file not found",
    }
    for path, problem in problems.items():
        for read in (read_volume, read_header):
            with pytest.raises(FormatError, match=problem):
                read(tmp_path / path)
    with pytest.raises(FormatError, match="no such folder"):
        list_series(tmp_path / "missing")


@pytest.mark.parametrize("number", [0, 2, 4])
@pytest.mark.parametrize("content", [b"", bytes(4000), b"version https://git-lfs"])
def test_a_slice_that_was_emptied_is_named(tmp_path, content, number):
    """At the end of a series it would not be missed, were the others read alone."""
    folder = save(tmp_path / "s", [slice_of(i) for i in range(5)])
    place = {dcmread(file).ImagePositionPatient[2]: file for file in folder.iterdir()}
    emptied = place[2.0 * number]
    emptied.write_bytes(content)
    with pytest.raises(FormatError, match=rf"{emptied.name}: is .*remove it"):
        read_volume(folder)


def test_a_damaged_file_is_said_of_the_series_in_its_folder_alone(tmp_path):
    save(tmp_path / "whole", [slice_of(i, series="1.1") for i in range(5)])
    save(tmp_path / "spoilt", [slice_of(i, series="1.2") for i in range(5)])
    (tmp_path / "spoilt" / "IM003.dcm").write_bytes(b"")
    assert read_volume(tmp_path, choice=SeriesChoice(series="1.1")).shape[0] == 5
    with pytest.raises(FormatError, match=r"IM003\.dcm: is empty"):
        read_volume(tmp_path, choice=SeriesChoice(series="1.2"))


def test_images_of_two_patients_are_no_series(tmp_path):
    slices = [slice_of(i, PatientID="ab"[i == 3]) for i in range(5)]
    with pytest.raises(FormatError, match="2 patients"):
        read_volume(save(tmp_path / "two", slices))
    slices = [slice_of(i, PatientID="a" if i else "") for i in range(5)]
    assert read_volume(save(tmp_path / "one", slices)).shape[0] == 5


def test_pipes_beside_slices_are_not_waited_for(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    os.mkfifo(folder / "pipe")
    assert read_volume(folder).shape[0] == 3
    assert read_volume(folder / "IM000.dcm").shape[0] == 3


def test_a_little_padding_is_read(tmp_path):
    dataset = slice_of(0)
    plain = read_volume(save(tmp_path / "plain", [dataset]))
    dataset.PixelData += bytes(14)
    padded = read_volume(save(tmp_path / "padded", [dataset]))
    np.testing.assert_array_equal(padded.array, plain.array)
