"""What refers to images still does, once both were cleaned with one key."""

import shutil

import numpy as np
import pytest
from pydicom import dcmread

import trivox
from dicom_checks import errors_of
from dicom_slices import save, slice_of
from untrained_models import write_untrained

pytest.importorskip("highdicom")


@pytest.fixture
def exam(tmp_path):
    """A series, and a segmentation, a structure set and a report about it."""
    named = {
        "PatientName": "CANARY^A",
        "PatientID": "CANARY",
        "StudyInstanceUID": "1.2.9",
    }
    more = {"FrameOfReferenceUID": "1.2.7", "Manufacturer": "SIEMENS"}
    series = [slice_of(number, **named, **more) for number in range(6)]
    save(tmp_path / "exam" / "case", series)
    model = write_untrained(tmp_path / "model", balanced=True)
    formats = "dicom-seg,rtstruct,sr"
    out = tmp_path / "out"
    trivox.predict(model, tmp_path / "exam" / "case", out, format=formats)
    for file in out.glob("*.dcm"):
        shutil.copy(file, tmp_path / "exam")
    return tmp_path / "exam"


def test_masks_of_segmentations_stay_bit_for_bit(exam, tmp_path):
    (before,) = [dcmread(file) for file in exam.glob("*.seg.dcm")]
    assert before.pixel_array.any()
    trivox.deidentify(exam, tmp_path / "cleaned", tmp_path / "key")
    objects = [dcmread(file) for file in (tmp_path / "cleaned").rglob("*.dcm")]
    (after,) = [each for each in objects if each.Modality == "SEG"]
    np.testing.assert_array_equal(after.pixel_array, before.pixel_array)


def test_references_follow_into_segmentations_structures_and_reports(exam, tmp_path):
    trivox.deidentify(exam, tmp_path / "cleaned", tmp_path / "key")
    files = sorted((tmp_path / "cleaned").rglob("*.dcm"))
    objects = [dcmread(file) for file in files]
    images = {each.SOPInstanceUID for each in objects if each.Modality == "CT"}
    derived = [each for each in objects if each.Modality != "CT"]
    assert {each.Modality for each in derived} == {"SEG", "RTSTRUCT", "SR"}
    everything = {each.SOPInstanceUID for each in objects}
    for each in derived:
        named = {
            element.value
            for element in each.iterall()
            if element.keyword == "ReferencedSOPInstanceUID"
        }
        assert named & images
        # a structure set refers to its study by this attribute as well
        assert named <= everything | {each.StudyInstanceUID}
        assert b"CANARY" not in b"".join(file.read_bytes() for file in files)
    for file, each in zip(files, objects, strict=True):
        if each.Modality != "CT":
            assert errors_of(file) == []
