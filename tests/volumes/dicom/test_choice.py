"""Which of several series is meant."""

import numpy as np
import pytest

from dicom_slices import save, slice_of
from trivox.errors import FormatError
from trivox.volumes.choice import SeriesChoice
from trivox.volumes.formats import read_header, read_volume

CORONAL = (1, 0, 0, 0, 0, -1)


def series(number, heights, *, turned=False, **attributes):
    """Slices at `heights` of the series with this number, coronal if turned."""
    slices = []
    for index, height in enumerate(heights):
        position = (0, height, 0) if turned else (0, 0, height)
        dataset = slice_of(index, series=f"1.{number}", position=position, **attributes)
        dataset.SeriesNumber = number
        if turned:
            dataset.ImageOrientationPatient = list(CORONAL)
        slices.append(dataset)
    return slices


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "s"
    save(place, series(1, np.arange(6) * 5.0), name="thick")
    save(place, series(2, np.arange(9) * 3.0, turned=True), name="coronal")
    save(place, series(3, np.arange(5) * 1.0), name="thin")
    return place


@pytest.mark.parametrize(
    ("wanted", "slices"),
    [
        ("1", 6),
        ("1.3", 5),
        ("largest", 9),
        ("thinnest", 5),
        ("axial,largest", 6),
        ("axial,thinnest", 5),
    ],
)
def test_by_number_by_uid_and_by_rules(folder, wanted, slices):
    choice = SeriesChoice(series=wanted)
    volume = read_volume(folder, choice=choice)
    assert volume.shape[0] == read_header(folder, choice=choice).shape[0] == slices
    by_rule = not wanted[0].isdigit()
    assert any(f"{wanted} of 3 is" in remark for remark in volume.remarks) == by_rule


@pytest.mark.parametrize("wanted", [None, "axial", "largest,", "7"])
def test_what_does_not_name_one_series_is_refused_with_all_of_them(folder, wanted):
    listed = (
        r"--series NUMBER, UID or largest\|thinnest\|axial.*"
        r"2 \(CT 'thorax', 9 images, 3 x 0\.75 x 0\.5 mm, 1\.2\); 1 .*; 3 "
    )
    with pytest.raises(FormatError, match=listed):
        read_volume(folder, choice=SeriesChoice(series=wanted))


def test_no_rule_chooses_among_patients(folder):
    save(folder, series(4, range(20), PatientID="other"), name="other")
    with pytest.raises(FormatError, match="choose among 2 patients"):
        read_volume(folder, choice=SeriesChoice(series="largest"))
    assert read_volume(folder, choice=SeriesChoice(series="4")).shape[0] == 20
