"""Objects about real series: valid, and every voxel where it was found."""

import numpy as np
import pytest

from dicom_checks import errors_of
from result_cases import result_of
from trivox.results.segmentation import write_segmentation
from trivox.results.structures import write_structures
from trivox.volumes.formats import read_header

SERIES = (
    "dicom/ct-jpeg2000",
    "dicom/mr-study/11_HCropVolume",
    "dicom/mr-study/37830-T2reg-78532",
    "dicom/dcmqi/23x38x3/multiframe",
    pytest.param("chest-ct/Lung_Dx-A0002", marks=pytest.mark.slow),
)


def ellipsoids(shape):
    """A ball in a ball in each of two halves, and a mark at the border."""
    at = [np.linspace(-1, 1, size) for size in shape]
    z, y, x = np.meshgrid(*at, indexing="ij")
    labels = np.zeros(shape, np.uint8)
    for middle, outer, inner in ((-0.4, 1, 2), (0.4, 2, 7)):
        distance = z**2 + y**2 + (x - middle) ** 2
        labels[distance < 0.1] = outer
        labels[distance < 0.03] = inner
    labels[:, :3, :5] = 7
    return labels


@pytest.mark.parametrize("name", SERIES)
def test_objects_about_real_series_are_valid(name, data_root, tmp_path):
    folder = data_root / name
    result = result_of(folder, ellipsoids(read_header(folder).shape))
    remarks = write_segmentation(result, tmp_path / "a.dcm")
    write_structures(result, tmp_path / "b.dcm")
    assert errors_of(tmp_path / "a.dcm") == []
    assert errors_of(tmp_path / "b.dcm") == []
    blank = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
    said = [any(f"{uid} is blank" in remark for remark in remarks) for uid in blank]
    assert said == [name == "dicom/ct-jpeg2000"] * 3
