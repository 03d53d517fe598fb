"""The JPEG family: decoded in a process of its own, whose death is a sentence."""

import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLosslessSV1

from dicom_slices import compress, pixels_of, save, slice_of
from trivox.errors import FormatError
from trivox.volumes.dicom import native
from trivox.volumes.formats import read_volume


@pytest.mark.oracle
def test_12_bit_extended_jpeg_equals_gdcm(tmp_path):
    source = Path(get_testdata_file("JPGExtended.dcm", download=False))
    file = tmp_path / "a.dcm"
    file.write_bytes(source.read_bytes())
    volume = read_volume(file)
    assert volume.array.max() > 255
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    np.testing.assert_array_equal(volume.array[0], expected)


def test_rescaling_and_grid_of_lossless_jpeg_are_those_of_the_headers(tmp_path):
    slices = [slice_of(i, RescaleSlope=2, RescaleIntercept=-7) for i in range(3)]
    for dataset in slices:
        compress(dataset, JPEGLosslessSV1)
    volume = read_volume(save(tmp_path / "s", slices))
    assert volume.spacing == (2.0, 0.75, 0.5)
    expected = np.stack([pixels_of(i) for i in range(3)]) * 2.0 - 7
    np.testing.assert_array_equal(volume.array[0], expected)


def test_signed_lossless_jpeg(tmp_path):
    pixels = pixels_of(0).astype(np.int16) - 2000
    signed = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}
    dataset = slice_of(0, pixels=pixels.view(np.uint16), **signed)
    compress(dataset, JPEGLosslessSV1)
    plane = read_volume(save(tmp_path / "s", [dataset])).array[0, 0]
    np.testing.assert_array_equal(plane, pixels - 1024)


def test_damaged_pixels_are_an_error_that_names_the_file(tmp_path):
    dataset = slice_of(0)
    compress(dataset, JPEGLosslessSV1)
    packed = bytearray(dataset.PixelData)
    packed[len(packed) // 2 :] = b"\xff" * (len(packed) - len(packed) // 2)
    dataset.PixelData = bytes(packed[: len(packed) // 2])
    with pytest.raises(FormatError, match=r"IM000\.dcm"):
        read_volume(save(tmp_path / "s", [dataset]))


def test_a_jpeg_of_another_size_is_refused_before_it_is_decoded(tmp_path):
    dataset = slice_of(0)
    compress(dataset, JPEGLosslessSV1)
    dataset.Rows += 1
    with pytest.raises(FormatError, match=r"IM000\.dcm: a compressed frame holds"):
        read_volume(save(tmp_path / "s", [dataset]))
    dataset.Rows -= 1
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    with pytest.raises(FormatError, match=r"a compressed frame holds \(0, 0\)"):
        read_volume(save(tmp_path / "t", [dataset]))


DEADLY = """
import os, signal, sys, time
sys.stdin.readline()
{}
"""


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGSEGV)", "SIGSEGV"),
        ("os.abort()", "SIGABRT"),
        ("time.sleep(60)", "SIGKILL"),
        ('print(\'{"shape": [9, 9], "type": "<u2"}\')', "exit 0"),
    ],
)
def test_a_decoder_that_dies_is_an_error_and_the_next_file_has_a_new_one(
    tmp_path, monkeypatch, what, said
):
    dataset = slice_of(0)
    compress(dataset, JPEGLosslessSV1)
    deadly = tmp_path / "child.py"
    deadly.write_text(DEADLY.format(what))
    sound = native._CHILD
    decoder = native.NativeDecoder(tmp_path, seconds=1)
    monkeypatch.setattr(native, "_CHILD", deadly)
    with pytest.raises(FormatError, match=f"end the decoder.*{said}"):
        decoder.decode(dataset)
    monkeypatch.setattr(native, "_CHILD", sound)
    monkeypatch.setattr(decoder, "_seconds", 60)
    np.testing.assert_array_equal(decoder.decode(dataset)[0], pixels_of(0))
    decoder.close()
    assert not (tmp_path / "pixels.dcm").exists()


def test_other_series_are_read_after_one_that_killed_its_decoder(tmp_path, monkeypatch):
    dataset = slice_of(0)
    compress(dataset, JPEGLosslessSV1)
    folder = save(tmp_path / "s", [dataset])
    deadly = tmp_path / "child.py"
    deadly.write_text(DEADLY.format("os._exit(3)"))
    sound = native._CHILD
    monkeypatch.setattr(native, "_CHILD", deadly)
    with pytest.raises(FormatError, match=r"IM000\.dcm.*exit 3"):
        read_volume(folder)
    monkeypatch.setattr(native, "_CHILD", sound)
    assert read_volume(folder).shape == (1, *pixels_of(0).shape)
