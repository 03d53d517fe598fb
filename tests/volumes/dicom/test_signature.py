"""DICOM files are known by their content: without preamble, without suffix, nested."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmwrite
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from dicom_slices import COLUMNS, ROWS, save, slice_of
from trivox.errors import FormatError
from trivox.volumes.dicom.signature import begins_bare, is_dicom
from trivox.volumes.formats import read_header, read_volume

SHAPE = (3, ROWS, COLUMNS)


def bare(path):
    path.write_bytes(path.read_bytes()[132:])


def test_files_without_preamble(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(3)])
    whole = read_volume(folder)
    for path in folder.iterdir():
        bare(path)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array, whole.array)
    np.testing.assert_array_equal(volume.affine, whole.affine)
    assert read_volume(folder / "IM001.dcm").shape == SHAPE


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_files_without_any_header(tmp_path, syntax):
    slices = [slice_of(i) for i in range(3)]
    whole = read_volume(save(tmp_path / "whole", slices))
    (tmp_path / "s").mkdir()
    for number, dataset in enumerate(slices):
        del dataset.file_meta
        big = syntax == ExplicitVRBigEndian
        if big:
            swapped = np.frombuffer(dataset.PixelData, "<u2").astype(">u2")
            dataset.PixelData = swapped.tobytes()
        buffer = io.BytesIO()
        options = {"implicit_vr": not big, "little_endian": not big}
        dcmwrite(buffer, dataset, **options)
        (tmp_path / "s" / f"IM{number}").write_bytes(buffer.getvalue())
    volume = read_volume(tmp_path / "s")
    np.testing.assert_array_equal(volume.array, whole.array)


@pytest.mark.parametrize("name", ["scan", "scan.IMA", "1.2.840.10008", "scan.dcm"])
def test_any_name_will_do(tmp_path, name):
    folder = save(tmp_path / "a", [slice_of(0)])
    file = tmp_path / name
    (folder / "IM000.dcm").rename(file)
    assert read_volume(file).shape == read_header(file).shape == (1, ROWS, COLUMNS)


def test_nested_exports_with_a_directory(tmp_path):
    slices = [slice_of(i) for i in range(3)]
    save(tmp_path / "DICOM" / "PA0" / "ST0" / "SE0", slices)
    directory = slice_of(0)
    directory.SOPClassUID = "1.2.840.10008.1.3.10"
    save(tmp_path, [directory], name="DICOMDIR")
    volume = read_volume(tmp_path)
    assert (volume.shape, volume.remarks) == (SHAPE, ())


@given(st.binary(max_size=600))
def test_any_bytes_can_be_asked(content):
    assert begins_bare(content) in (True, False)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(600),
        b"\x08\x00\x05\x00",
        "a text, as long as it may be".encode("utf-16") * 30,
        b"\x08\x00\x08\x00" * 100,
        b"\x1f\x8b\x08\x00" * 100,
    ],
)
def test_other_files_are_no_dicom(tmp_path, content):
    file = tmp_path / "a.dcm"
    file.write_bytes(content or b"\n")
    assert not is_dicom(file)
    with pytest.raises(FormatError, match="not a DICOM file"):
        read_volume(file)
