"""DICOM segmentations: on the source's own frames, valid, the same every time."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest

from dicom_checks import assert_same_places, errors_of, masks_in_world
from dicom_slices import enhanced, one, save, slice_of
from result_cases import (
    NAMES,
    PATIENT,
    SERIES,
    enhanced_series,
    labels_for,
    result_of,
    write_series,
)
from trivox.datasets.dataset import Case
from trivox.errors import DataError
from trivox.results.segmentation import write_segmentation
from trivox.results.structures import write_structures
from trivox.volumes.choice import SeriesChoice
from trivox.volumes.dicom.files import quiet
from trivox.volumes.formats import read_volume

TYPES = ("binary", "labelmap", "fractional")


def written(result, folder, name="a.seg.dcm"):
    remarks = write_segmentation(result, folder / name)
    return folder / name, remarks


@pytest.mark.parametrize(
    ("kind", "seg_type"),
    [
        *((kind, "binary") for kind in SERIES),
        *((kind, "labelmap") for kind in ("mr", "oblique", "single")),
        *((kind, "fractional") for kind in ("tilted", "wide", "single")),
    ],
)
def test_every_voxel_lies_where_it_was_found(kind, seg_type, tmp_path):
    folder = write_series(tmp_path / "case", **SERIES[kind])
    result = result_of(folder, seg_type=seg_type)
    path, _ = written(result, tmp_path)
    assert_same_places(path, result.labels, NAMES.values())
    assert errors_of(path) == []


@pytest.mark.parametrize("seg_type", TYPES)
def test_frames_of_a_multi_frame_image_are_named(seg_type, tmp_path):
    folder = enhanced_series(tmp_path / "case")
    result = result_of(folder, seg_type=seg_type)
    path, _ = written(result, tmp_path)
    assert_same_places(path, result.labels, NAMES.values())
    assert errors_of(path) == []
    source = pydicom.dcmread(folder / "IM000.dcm")
    for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence:
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert item.ReferencedSOPInstanceUID == source.SOPInstanceUID
        frame = source.PerFrameFunctionalGroupsSequence[item.ReferencedFrameNumber - 1]
        assert (
            frame.PlanePositionSequence[0].ImagePositionPatient
            == group.PlanePositionSequence[0].ImagePositionPatient
        )


def test_several_multi_frame_files_may_make_one_volume(tmp_path):
    parts = []
    for first in (0, 3):
        positions = [(0, 0, 2.0 * (first + number)) for number in range(3)]
        parts.append(enhanced(positions, **PATIENT))
    folder = save(tmp_path / "case", parts)
    result = result_of(folder)
    path, _ = written(result, tmp_path)
    assert_same_places(path, result.labels, NAMES.values())
    assert errors_of(path) == []


def test_frames_refer_to_the_images_at_their_places(tmp_path):
    folder = write_series(tmp_path / "case")
    path, _ = written(result_of(folder), tmp_path)
    images = [pydicom.dcmread(file) for file in folder.iterdir()]
    places = {each.SOPInstanceUID: each.ImagePositionPatient for each in images}
    seg = pydicom.dcmread(path)
    for group in seg.PerFrameFunctionalGroupsSequence:
        item = group.DerivationImageSequence[0].SourceImageSequence[0]
        position = group.PlanePositionSequence[0].ImagePositionPatient
        assert places[item.ReferencedSOPInstanceUID] == position
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == images[0].SeriesInstanceUID
    named = {e.ReferencedSOPInstanceUID for e in series.ReferencedInstanceSequence}
    assert named == places.keys()
    assert "SourceImageSequence" not in seg


@pytest.mark.parametrize("seg_type", TYPES)
def test_a_case_in_which_nothing_is_found_has_a_valid_segmentation(seg_type, tmp_path):
    folder = write_series(tmp_path / "case")
    nothing = np.zeros(read_volume(folder).shape, np.uint8)
    result = result_of(folder, nothing, seg_type=seg_type)
    if seg_type == "fractional":
        result.probabilities.array[:] = 0
    path, _ = written(result, tmp_path)
    seg = pydicom.dcmread(path)
    assert not seg.pixel_array.any()
    assert seg.NumberOfFrames == (1 if seg_type == "labelmap" else len(NAMES))
    labels = [each.SegmentLabel for each in seg.SegmentSequence]
    assert labels[-len(NAMES) :] == list(NAMES)
    assert errors_of(path) == []


def test_empty_frames_are_left_out(tmp_path):
    folder = write_series(tmp_path / "case", count=9)
    labels = np.zeros(read_volume(folder).shape, np.uint8)
    labels[4, 2:5, 3:6] = 2
    path, _ = written(result_of(folder, labels), tmp_path)
    assert pydicom.dcmread(path).NumberOfFrames == 1


@pytest.mark.parametrize(
    ("seg_type", "syntax"),
    [
        ("binary", "1.2.840.10008.1.2.1"),  # bits cannot be run lengths (PS3.5 8.2.2)
        ("labelmap", "1.2.840.10008.1.2.5"),
        ("fractional", "1.2.840.10008.1.2.5"),
    ],
)
def test_pixels_are_packed_as_the_standard_allows(seg_type, syntax, tmp_path):
    folder = write_series(tmp_path / "case")
    path, _ = written(result_of(folder, seg_type=seg_type), tmp_path)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax


def test_probabilities_are_stored_in_255_steps(tmp_path):
    folder = write_series(tmp_path / "case")
    result = result_of(folder, seg_type="fractional")
    path, _ = written(result, tmp_path)
    seg = pydicom.dcmread(path)
    assert seg.SegmentationFractionalType == "PROBABILITY"
    assert seg.MaximumFractionalValue == 255
    assert set(np.unique(seg.pixel_array)) == {round(0.1 * 255), round(0.8 * 255)}


def test_a_fractional_segmentation_needs_probabilities(tmp_path):
    folder = write_series(tmp_path / "case")
    result = result_of(folder, seg_type="binary")
    object.__setattr__(result.options, "seg_type", "fractional")
    with pytest.raises(DataError, match="needs probabilities"):
        write_segmentation(result, tmp_path / "a.dcm")


REGIONS = {"whole": (1, 2, 7), "core": (2, 7), "middle": (7,)}


def test_regions_overlap_as_they_were_trained(tmp_path):
    folder = write_series(tmp_path / "case")
    result = result_of(folder, segments=REGIONS)
    path, _ = written(result, tmp_path)
    seg = pydicom.dcmread(path)
    assert seg.SegmentsOverlap == "YES"
    assert [each.SegmentLabel for each in seg.SegmentSequence] == list(REGIONS)
    seen = masks_in_world(path)
    for number, values in enumerate(REGIONS.values(), start=1):
        inside = np.isin(result.labels.array, values)
        assert len(seen[number]) == inside.sum()
    assert errors_of(path) == []


def test_a_label_map_holds_the_labels_that_regions_are_made_of(tmp_path):
    folder = write_series(tmp_path / "case")
    result = result_of(folder, segments=REGIONS, seg_type="labelmap")
    path, _ = written(result, tmp_path)
    assert_same_places(path, result.labels, NAMES.values())


@pytest.mark.parametrize("seg_type", TYPES)
def test_the_same_input_and_model_give_the_same_bytes(seg_type, tmp_path):
    folder = write_series(tmp_path / "case")
    once, _ = written(result_of(folder, seg_type=seg_type), tmp_path, "a.dcm")
    twice, _ = written(result_of(folder, seg_type=seg_type), tmp_path, "b.dcm")
    assert once.read_bytes() == twice.read_bytes()


def test_another_result_is_another_object(tmp_path):
    folder = write_series(tmp_path / "case")
    uids = set()
    shape = read_volume(folder).shape
    for number in range(3):
        result = result_of(folder, labels_for(shape, seed=number))
        path, _ = written(result, tmp_path, f"{number}.dcm")
        uids.add(pydicom.dcmread(path).SOPInstanceUID)
    others = {"l": {"seg_type": "labelmap"}, "r": {"segments": {"all": (1, 2, 7)}}}
    for name, options in others.items():
        path, _ = written(result_of(folder, **options), tmp_path, f"{name}.dcm")
        uids.add(pydicom.dcmread(path).SOPInstanceUID)
    assert len(uids) == 5


def test_what_an_object_does_not_say_does_not_change_its_uid(tmp_path):
    folder = write_series(tmp_path / "case")
    chances = result_of(folder, seg_type="fractional").probabilities
    plain = result_of(folder)
    more = replace(plain, probabilities=chances, trust={"agreement": 0.5})
    once, _ = written(plain, tmp_path, "a.dcm")
    twice, _ = written(more, tmp_path, "b.dcm")
    assert once.read_bytes() == twice.read_bytes()
    assert plain.digest != more.digest


def test_an_object_about_a_corrected_patient_is_another_object(tmp_path):
    uids = set()
    for number, name in enumerate(("Mueller^Joerg", "Maier^Joerg")):
        folder = write_series(
            tmp_path / f"case{number}", PatientName=name, SOPInstanceUID="1.2.3.4"
        )
        path, _ = written(result_of(folder), tmp_path, f"{number}.dcm")
        uids.add(pydicom.dcmread(path).SOPInstanceUID)
    assert len(uids) == 2


def test_patient_and_study_are_the_sources_and_nothing_is_of_the_scanner(tmp_path):
    folder = write_series(
        tmp_path / "case", Manufacturer="ACME", StationName="CT1", InstitutionName="H"
    )
    path, _ = written(result_of(folder), tmp_path)
    seg = pydicom.dcmread(path)
    for keyword, value in PATIENT.items():
        if keyword != "SpecificCharacterSet":
            assert seg[keyword].value == value
    assert "StationName" not in seg
    assert "InstitutionName" not in seg
    assert seg.Manufacturer == "trivox"
    assert seg.DeviceSerialNumber == result_of(folder).model.sha256
    assert "Research use only" in seg.SeriesDescription
    assert "Research use only" in seg.ContentDescription
    for segment in seg.SegmentSequence:
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert result_of(folder).model.sha256 in algorithm.AlgorithmParameters
        assert segment.TrackingUID
        assert segment.TrackingID


def test_what_patients_lack_is_present_and_empty(tmp_path):
    folder = write_series(tmp_path / "case", anonymous=True, SeriesInstanceUID=None)
    path, remarks = written(result_of(folder), tmp_path)
    seg = pydicom.dcmread(path)
    for keyword in ("PatientName", "PatientID", "PatientSex", "StudyDate", "StudyID"):
        assert keyword in seg
        assert not seg[keyword].value
    said = " ".join(remarks)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert f"{keyword} is blank" in said
        assert seg[keyword].value
    assert seg.ContentDate == "19000101"
    assert errors_of(path) == []


@pytest.mark.parametrize(
    ("header", "expected"),
    [({}, True), ({"RescaleType": "HU"}, True), ({"RescaleType": "US"}, False)],
)
def test_values_are_in_hu_where_a_ct_says_nothing_else(header, expected, tmp_path):
    result = result_of(write_series(tmp_path / "case", **header))
    assert result.hounsfield == (expected,)


def test_exams_of_nobody_are_not_one_study(tmp_path):
    studies = set()
    for number in range(2):
        folder = tmp_path / f"case{number}"
        write_series(folder, anonymous=True, PatientID="anonymous")
        studies.add(result_of(folder).source.first.StudyInstanceUID)
    assert len(studies) == 2


def test_images_without_a_uid_get_that_of_the_others(tmp_path):
    folder = write_series(tmp_path / "case")
    file = sorted(folder.iterdir())[2]
    image = pydicom.dcmread(file)
    image.StudyInstanceUID = image.FrameOfReferenceUID = ""
    image.save_as(file)
    for each in result_of(folder).source.datasets:
        assert each.StudyInstanceUID == PATIENT["StudyInstanceUID"]
        assert each.FrameOfReferenceUID == PATIENT["FrameOfReferenceUID"]


def test_what_two_models_find_is_not_tracked_as_one(tmp_path):
    result = result_of(write_series(tmp_path / "case"))
    model = replace(result.model, sha256="f" * 64)
    tracked = set()
    for number, each in enumerate((result, replace(result, model=model))):
        path, _ = written(each, tmp_path, f"{number}.dcm")
        segments = pydicom.dcmread(path).SegmentSequence
        tracked |= {segment.TrackingUID for segment in segments}
    assert len(tracked) == 2 * len(NAMES)


def test_a_side_is_said_beside_the_organ(tmp_path):
    names = {"kidney_left": 1, "kidney_right": 2}
    result = result_of(write_series(tmp_path / "case"), names=names)
    path, _ = written(result, tmp_path)
    write_structures(result, tmp_path / "b.dcm")
    structures = pydicom.dcmread(tmp_path / "b.dcm")
    of_segments = [
        each.SegmentedPropertyTypeCodeSequence[0]
        for each in pydicom.dcmread(path).SegmentSequence
    ]
    of_regions = [
        each.RTROIIdentificationCodeSequence[0]
        for each in structures.RTROIObservationsSequence
    ]
    for types in (of_segments, of_regions):
        assert [each.CodeMeaning for each in types] == ["Kidney", "Kidney"]
        sides = [each.SegmentedPropertyTypeModifierCodeSequence[0] for each in types]
        assert [side.CodeMeaning for side in sides] == ["Left", "Right"]


def test_labels_of_another_grid_are_refused(tmp_path):
    result = result_of(write_series(tmp_path / "case"))
    other = result_of(write_series(tmp_path / "other", shape=(9, 23)))
    with pytest.raises(DataError, match="changed meanwhile, predict again"):
        write_segmentation(replace(result, labels=other.labels), tmp_path / "a.dcm")


def test_values_that_are_none_are_left_out_and_said(tmp_path):
    with quiet():
        folder = write_series(
            tmp_path / "case", PatientSex="male", PatientBirthDate="5th of May"
        )
        path, remarks = written(result_of(folder), tmp_path)
    assert errors_of(path) == []
    assert "PatientSex holds no valid value; left out" in remarks
    assert "PatientBirthDate holds no valid value; left out" in remarks
    assert b"5th of May" not in path.read_bytes()


def test_a_label_without_a_code_gets_a_private_one_and_that_is_said(tmp_path):
    folder = write_series(tmp_path / "case")
    path, remarks = written(result_of(folder), tmp_path)
    assert any("no such organ has no code" in remark for remark in remarks)
    last = pydicom.dcmread(path).SegmentSequence[-1]
    (code,) = last.SegmentedPropertyTypeCodeSequence
    assert code.CodingSchemeDesignator == "99TRIVOX"


def test_a_case_that_says_not_where_it_lies_is_refused(tmp_path):
    dataset = enhanced([(0, 0, 0)] * 3, PerFrameFunctionalGroupsSequence=None)
    del dataset.PerFrameFunctionalGroupsSequence
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence = one(
        PixelSpacing=[1, 1], SliceThickness=2, SpacingBetweenSlices=2
    )
    folder = save(tmp_path / "case", [dataset])
    with pytest.raises(DataError, match=r"where its images lie.*nifti"):
        write_segmentation(result_of(folder), tmp_path / "a.dcm")


ODD_NAMES = {
    "näme with ümlauts": 1,
    "back\\slash, and a line\nbreak": 2,
    "肝" * 40: 3,
    "so long a name that no value of the standard's kind for labels could hold it": 7,
}


@pytest.mark.parametrize("write", [write_segmentation, write_structures])
def test_labels_may_be_called_anything(write, tmp_path):
    folder = write_series(tmp_path / "case")
    write(result_of(folder, names=ODD_NAMES), tmp_path / "a.dcm")
    assert errors_of(tmp_path / "a.dcm") == []


HEADERS = {
    "dates of old": {"StudyDate": "2024.05.06", "ContentDate": "6 May"},
    "times with colons": {"StudyTime": "07:08:09", "ContentTime": "noon"},
    "a time that is none": {"ContentDate": "20240506", "ContentTime": "noon"},
    "age without unit": {"PatientAge": "41"},
    "anonymous": {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "by hand"},
    "unknown characters": {"SpecificCharacterSet": "ISO_IR 999"},
    "long patient": {"PatientID": "x" * 64, "PatientName": "A^B^C^D^E"},
    "no thickness": {"SliceThickness": None},
    "no spacing": {"PixelSpacing": None, "ImagerPixelSpacing": [0.5, 0.5]},
}


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        *((kind, write_structures) for kind in HEADERS),
        *((kind, write_segmentation) for kind in list(HEADERS)[-4:]),
        ("dates of old", write_segmentation),
    ],
)
def test_headers_may_be_sloppy(kind, write, tmp_path):
    with quiet():
        folder = write_series(tmp_path / "case", **HEADERS[kind])
        write(result_of(folder), tmp_path / "a.dcm")
    assert errors_of(tmp_path / "a.dcm") == []


def test_slices_that_are_read_as_even_stay_where_they_are(tmp_path):
    datasets = []
    for number, z in enumerate((0.0, 2.0, 4.3, 6.0)):
        datasets.append(slice_of(number, position=(0, 0, z), **PATIENT))
    folder = save(tmp_path / "case", datasets)
    choice = SeriesChoice(slice_tolerance=0.5)
    image = read_volume(folder, choice=choice)
    labels = np.zeros(image.shape, np.uint8)
    labels[:, 3:6, 4:8] = 1
    result = replace(
        result_of(folder, labels, choice=choice),
        case=Case(name="case", images=(folder,), choice=choice),
    )
    path, _ = written(result, tmp_path)
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    heights = {f.PlanePositionSequence[0].ImagePositionPatient[2] for f in frames}
    assert heights == {0.0, 2.0, 4.3, 6.0}
