"""What lies beside a series does not stop it, and is said."""

import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless

from dicom_slices import COLUMNS, ROWS, compress, film, save, slice_of
from trivox.errors import FormatError
from trivox.volumes.formats import read_header, read_volume

SHAPE = (4, ROWS, COLUMNS)


def colour(series):
    pixels = np.zeros((ROWS, COLUMNS * 3), np.uint8)
    dataset = slice_of(0, series=series, pixels=pixels, Columns=COLUMNS)
    dataset.SamplesPerPixel = 3
    dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    return dataset


STRANGERS = {
    "colour image": colour("9"),
    "multi-frame image": film(5, series="9"),
    "image without position": slice_of(
        0, series="9", ImagePositionPatient=None, ImageOrientationPatient=None
    ),
    "unusable image": slice_of(0, series="9", PixelSpacing=None),
    "RTSTRUCT": slice_of(0, series="9", Modality="RTSTRUCT"),
    "SEG": slice_of(0, series="9", Modality="SEG"),
    "SR": slice_of(0, series="9", Modality="SR"),
    "PR": slice_of(0, series="9", Modality="PR"),
}


@pytest.mark.parametrize("what", STRANGERS)
def test_strangers_of_another_series_are_left_aside_with_a_remark(tmp_path, what):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(4)])
    save(folder / "below", [STRANGERS[what]], name="stranger")
    remarks = (f"beside the series: 1 x {what} left aside",)
    volume = read_volume(folder)
    assert volume.shape == read_header(folder).shape == SHAPE
    assert volume.remarks == read_header(folder).remarks == remarks


def test_localizers_go_without_saying(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(4)])
    kinds = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save(folder, [slice_of(0, series="9", ImageType=kinds)], name="scout")
    assert read_volume(folder).remarks == ()


@pytest.mark.parametrize(
    "what", ["colour image", "multi-frame image", "unusable image"]
)
def test_what_cannot_be_used_of_the_series_itself_is_an_error(tmp_path, what):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(4)])
    stranger = STRANGERS[what].copy()
    stranger.file_meta = STRANGERS[what].file_meta
    stranger.SeriesInstanceUID = "1.2.3"
    save(folder, [stranger], name="odd")
    for read in (read_volume, read_header):
        with pytest.raises(FormatError, match=r"odd000\.dcm"):
            read(folder)


def test_a_damaged_file_of_another_series_does_not_stop_it(tmp_path):
    folder = save(tmp_path / "s", [slice_of(i) for i in range(4)])
    save(folder, [slice_of(0, series="9", Rows=None)], name="cut")
    assert read_volume(folder).shape == SHAPE
    other = slice_of(0, series="9", position=(0, 0, 0))
    compress(other, JPEG2000Lossless)
    save(folder, [other], name="cut")
    with pytest.raises(FormatError, match="2 series in this folder"):
        read_volume(folder)
