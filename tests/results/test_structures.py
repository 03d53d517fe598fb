"""Structure sets: contours in the source's planes that give the masks back."""

import numpy as np
import pydicom
import pytest

from dicom_checks import errors_of
from result_cases import (
    NAMES,
    PATIENT,
    SERIES,
    enhanced_series,
    result_of,
    write_series,
)
from trivox.errors import DataError
from trivox.results.structures import write_structures
from trivox.volumes.formats import read_volume


def written(result, folder, name="a.dcm"):
    remarks = write_structures(result, folder / name)
    return folder / name, remarks


def inside(points, shape):
    """Which centres lie inside a closed contour `(n, 2)` of rows and columns."""
    rows, columns = np.indices(shape).astype(float)
    crossed = np.zeros(shape, bool)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        spans = (r0 > rows) != (r1 > rows)
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed ^= spans & (columns < c0 + (rows - r0) * (c1 - c0) / (r1 - r0))
    return crossed


def drawn(path, image):
    """The mask of each region by its name, drawn on the grid of an image."""
    structures = pydicom.dcmread(path)
    to_voxels = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.affine)
    masks = {}
    for region, outline in zip(
        structures.StructureSetROISequence, structures.ROIContourSequence, strict=True
    ):
        assert outline.ReferencedROINumber == region.ROINumber
        mask = np.zeros(image.shape, bool)
        for contour in outline.get("ContourSequence", []):
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            assert len(points) == contour.NumberOfContourPoints
            x, y, z = to_voxels[:3, :3] @ points.T + to_voxels[:3, 3:]
            np.testing.assert_allclose(z, np.rint(z[0]), atol=1e-3)
            plane = mask[round(z[0])]
            plane ^= inside(np.stack([y, x], axis=1), image.shape[1:])
        masks[region.ROIName] = mask
    return masks


@pytest.mark.parametrize("kind", SERIES)
def test_contours_drawn_again_give_every_voxel_back(kind, tmp_path):
    folder = write_series(tmp_path / "case", **SERIES[kind])
    result = result_of(folder)
    path, _ = written(result, tmp_path)
    masks = drawn(path, result.image)
    assert list(masks) == list(NAMES)
    for name, value in NAMES.items():
        np.testing.assert_array_equal(masks[name], result.labels.array[0] == value)
    assert errors_of(path) == []


def test_contours_name_the_images_that_they_lie_on(tmp_path):
    folder = write_series(tmp_path / "case")
    path, _ = written(result_of(folder), tmp_path)
    images = {}
    for file in folder.iterdir():
        image = pydicom.dcmread(file)
        images[image.SOPInstanceUID] = image.ImagePositionPatient[2]
    structures = pydicom.dcmread(path)
    for outline in structures.ROIContourSequence:
        for contour in outline.ContourSequence:
            (named,) = contour.ContourImageSequence
            assert images[named.ReferencedSOPInstanceUID] == contour.ContourData[2]
    (frame,) = structures.ReferencedFrameOfReferenceSequence
    assert frame.FrameOfReferenceUID == PATIENT["FrameOfReferenceUID"]
    (study,) = frame.RTReferencedStudySequence
    assert study.ReferencedSOPInstanceUID == PATIENT["StudyInstanceUID"]
    (series,) = study.RTReferencedSeriesSequence
    named = {each.ReferencedSOPInstanceUID for each in series.ContourImageSequence}
    assert named == images.keys()


def test_contours_name_the_frames_of_a_multi_frame_image(tmp_path):
    folder = enhanced_series(tmp_path / "case")
    result = result_of(folder)
    path, _ = written(result, tmp_path)
    source = pydicom.dcmread(folder / "IM000.dcm")
    for outline in pydicom.dcmread(path).ROIContourSequence:
        for contour in outline.ContourSequence:
            number = contour.ContourImageSequence[0].ReferencedFrameNumber
            group = source.PerFrameFunctionalGroupsSequence[number - 1]
            position = group.PlanePositionSequence[0].ImagePositionPatient
            assert contour.ContourData[2] == position[2]
    masks = drawn(path, result.image)
    np.testing.assert_array_equal(masks["liver"], result.labels.array[0] == 1)
    assert errors_of(path) == []


def test_what_is_not_found_is_listed_and_has_no_contour(tmp_path):
    folder = write_series(tmp_path / "case")
    nothing = np.zeros(read_volume(folder).shape, np.uint8)
    path, _ = written(result_of(folder, nothing), tmp_path)
    structures = pydicom.dcmread(path)
    assert [r.ROIName for r in structures.StructureSetROISequence] == list(NAMES)
    assert not any("ContourSequence" in o for o in structures.ROIContourSequence)
    assert errors_of(path) == []


def test_regions_may_overlap(tmp_path):
    folder = write_series(tmp_path / "case")
    regions = {"whole": (1, 2, 7), "core": (2, 7)}
    result = result_of(folder, segments=regions)
    path, _ = written(result, tmp_path)
    masks = drawn(path, result.image)
    for name, values in regions.items():
        meant = np.isin(result.labels.array[0], values)
        np.testing.assert_array_equal(masks[name], meant)


def test_long_contours_are_not_cut(tmp_path):
    """More numbers than explicit lengths of 16 bits can hold."""
    folder = write_series(tmp_path / "case", count=1, shape=(48, 48))
    labels = np.ones((1, 48, 48), np.uint8)
    labels[0, 1:-1:2, 1:-1:2] = 0
    result = result_of(folder, labels)
    path, _ = written(result, tmp_path)
    contours = pydicom.dcmread(path).ROIContourSequence[0].ContourSequence
    (length,) = {len("\\".join(map(str, c.ContourData))) for c in contours}
    assert length > 2**16
    masks = drawn(path, result.image)
    np.testing.assert_array_equal(masks["liver"], labels == 1)


def test_every_value_has_an_even_length(tmp_path):
    """Numbers are written as they are, without what pydicom adds to odd ones."""
    path, _ = written(result_of(write_series(tmp_path / "case")), tmp_path)
    values = [
        contour.get_item("ContourData").value
        for outline in pydicom.dcmread(path).ROIContourSequence
        for contour in outline.ContourSequence
    ]
    assert {len(value) % 2 for value in values} == {0}
    assert {value.endswith(b" ") for value in values} == {True, False}


def test_the_same_input_and_model_give_the_same_bytes(tmp_path):
    folder = write_series(tmp_path / "case")
    once, _ = written(result_of(folder), tmp_path, "a.dcm")
    twice, _ = written(result_of(folder), tmp_path, "b.dcm")
    assert once.read_bytes() == twice.read_bytes()


def test_it_says_who_made_it_and_for_what(tmp_path):
    folder = write_series(tmp_path / "case")
    path, remarks = written(result_of(folder), tmp_path)
    structures = pydicom.dcmread(path)
    assert "Research use only" in structures.SeriesDescription
    assert "Research use only" in structures.StructureSetDescription
    assert structures.ApprovalStatus == "UNAPPROVED"
    assert structures.PatientName == PATIENT["PatientName"]
    for region in structures.StructureSetROISequence:
        (algorithm,) = region.ROIDerivationAlgorithmIdentificationSequence
        assert result_of(folder).model.sha256 in algorithm.AlgorithmParameters
    assert any("no such organ has no code" in remark for remark in remarks)


def test_a_case_of_other_files_is_refused_in_a_line(tmp_path):
    folder = write_series(tmp_path / "case")
    result = result_of(folder)
    object.__setattr__(result, "source", None)
    with pytest.raises(DataError, match="refers to a DICOM series"):
        write_structures(result, tmp_path / "a.dcm")
