"""`CASE.sr.dcm`: valid, readable by others, and saying what was measured."""

from dataclasses import replace

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from dicom_checks import errors_of
from dicom_slices import enhanced, save
from result_cases import MODEL, MR, NAMES, PATIENT, result_of, write_series
from trivox.errors import DataError
from trivox.inference.classify import Classification
from trivox.results.reporting.report import write_report
from trivox.results.segmentation import write_segmentation
from trivox.volumes.dicom.files import quiet
from trivox.volumes.formats import read_volume
from trivox.volumes.volume import Volume

TRUST = {
    "volumes": {"liver": {"volume_ml": 0.1, "ci95_ml": [0.01, 0.3]}},
    "score": 0.625,
    "agreement": 0.75,
    "abstain": True,
    "reason": "entropy 0.6 is above 0.5",
}


def labels_inside(shape):
    """A liver that is seen whole, a truncated spleen, and nothing else."""
    labels = np.zeros(shape, np.uint8)
    labels[1:3, 2:6, 3:8] = 1
    labels[0, 7:9, 3:5] = 2
    return labels


@pytest.fixture
def result(tmp_path):
    folder = write_series(tmp_path / "case")
    made = result_of(folder, labels_inside(read_volume(folder).shape))
    chances = {"benign": 0.25, "malignant": 0.75}
    answer = Classification(chances, ("no lesion",))
    return replace(made, trust=TRUST, classification=answer, warnings=("a warning",))


def written(result, folder):
    path = folder / "a.sr.dcm"
    assert write_report(result, path) == ()
    return path


def groups_of(path):
    """Groups of segments by the number of the segment."""
    with quiet():
        report = highdicom.sr.srread(path)
    groups = report.content.get_volumetric_roi_measurement_groups()
    return {group.referenced_segmentation_number: group for group in numbered(groups)}


def numbered(groups):
    for group in groups:
        segment = highdicom.sr.utils.find_content_items(
            group[0], name=codes.DCM.ReferencedSegment
        )[0]
        number = segment.ReferencedSOPSequence[0].ReferencedSegmentNumber
        group.referenced_segmentation_number = number
        yield group


def numbers_of(group):
    return {
        each.name.meaning: (each.value, each.unit.value)
        for each in group.get_measurements()
    }


def comments_of(group):
    items = highdicom.sr.utils.find_content_items(group[0], name=codes.DCM.Comment)
    return [item.value for item in items]


def test_numbers_are_those_of_the_statistics(result, tmp_path):
    groups = groups_of(written(result, tmp_path))
    liver = result.structures["liver"]
    numbers = numbers_of(groups[1])
    expected = {
        "Volume": (liver["volume_ml"], "mL"),
        "Maximum 3D Diameter of a Mesh": (liver["longest_mm"], "mm"),
        "Long axis": (liver["axial_long_mm"], "mm"),
        "Short axis": (liver["axial_short_mm"], "mm"),
        "Attenuation Coefficient": (liver["intensity"]["image"]["mean"], "[hnsf'U]"),
    }
    assert numbers.keys() == expected.keys()
    for name, (value, unit) in expected.items():
        assert numbers[name] == (pytest.approx(value, rel=1e-5), unit)


def test_the_interval_of_a_volume_stands_beside_it(result, tmp_path):
    group = groups_of(written(result, tmp_path))[1]
    (volume,) = group.get_measurements(codes.SCT.Volume)
    bounds = {
        item.name.value: (item.value, item.unit.value)
        for item in volume[0].ContentSequence
        if item.ValueType == "NUM"
    }
    liver = result.structures["liver"]["volume_ml"]
    assert bounds == {
        "371886008": (pytest.approx(0.3 - liver, rel=1e-5), "mL"),
        "371885007": (pytest.approx(liver - 0.01, rel=1e-5), "mL"),
    }
    assert comments_of(group) == ["95 % interval of the volume: 0.01 to 0.3 ml"]


def test_what_cannot_be_known_is_no_number(result, tmp_path):
    groups = groups_of(written(result, tmp_path))
    truncated = numbers_of(groups[2])
    assert truncated.keys() == {"Attenuation Coefficient"}
    (said,) = comments_of(groups[2])
    assert said.startswith("truncated: touches the border of the image (I)")
    missing = numbers_of(groups[3])
    assert missing == {"Volume": (0, "mL")}
    assert comments_of(groups[3]) == ["not found"]


def test_groups_refer_to_the_segments_of_the_segmentation(result, tmp_path):
    path = written(result, tmp_path)
    write_segmentation(result, tmp_path / "a.seg.dcm")
    segmentation = pydicom.dcmread(tmp_path / "a.seg.dcm")
    report = pydicom.dcmread(path)
    evidence = {}
    for study in report.CurrentRequestedProcedureEvidenceSequence:
        assert study.StudyInstanceUID == segmentation.StudyInstanceUID
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                evidence[item.ReferencedSOPInstanceUID] = (
                    series.SeriesInstanceUID,
                    item.ReferencedSOPClassUID,
                )
    named = evidence[segmentation.SOPInstanceUID]
    assert named == (segmentation.SeriesInstanceUID, segmentation.SOPClassUID)
    for number, group in groups_of(path).items():
        (item,) = highdicom.sr.utils.find_content_items(
            group[0], name=codes.DCM.ReferencedSegment
        )
        (referred,) = item.ReferencedSOPSequence
        assert referred.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        segment = segmentation.SegmentSequence[number - 1]
        assert group.tracking_uid == segment.TrackingUID
        assert group.tracking_identifier == segment.TrackingID
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        assert group.finding_type.value == kind.CodeValue


def test_class_doubt_and_warnings_are_said_of_the_case(result, tmp_path):
    with quiet():
        report = highdicom.sr.srread(written(result, tmp_path))
    (group,) = report.content.get_image_measurement_groups()
    chances = {}
    for number in group.get_measurements(codes.DCM.Probability):
        (of_class,) = number[0].ContentSequence
        chances[of_class.value.meaning] = number.value
    assert chances == {"benign": 0.25, "malignant": 0.75}
    answers = {
        e.name.meaning: e.value.meaning for e in group.get_qualitative_evaluations()
    }
    assert answers.pop("Algorithm Family") == "Artificial Intelligence"
    assert answers == {"class": "malignant", "model abstains": "Yes"}
    numbers = numbers_of(group)
    assert numbers["score of doubt"] == (0.625, "1")
    assert numbers["agreement of votes"] == (0.75, "1")
    assert comments_of(group) == [
        "RESEARCH USE ONLY - not for diagnosis or treatment",
        "look at this case: entropy 0.6 is above 0.5",
        "class in doubt: no lesion",
        "a warning",
    ]


def test_the_model_is_named_and_nothing_of_the_scanner(result, tmp_path):
    path = written(result, tmp_path)
    text = path.read_bytes()
    assert f"model_sha256={MODEL.sha256}".encode() in text
    report = pydicom.dcmread(path)
    assert report.Manufacturer == "trivox"
    assert report.PatientID == PATIENT["PatientID"]
    assert report.PreliminaryFlag == "PRELIMINARY"
    assert report.VerificationFlag == "UNVERIFIED"
    assert "Research use only" in report.SeriesDescription
    assert (report.ContentDate, report.ContentTime) == ("20240506", "070809")


@pytest.mark.parametrize("seg_type", ["binary", "labelmap", "fractional"])
def test_reports_are_valid_and_the_same_every_time(tmp_path, seg_type):
    folder = write_series(tmp_path / "case", **MR)
    paths = [tmp_path / "a.sr.dcm", tmp_path / "b.sr.dcm"]
    for path in paths:
        write_report(result_of(folder, seg_type=seg_type), path)
    errors = errors_of(paths[0])
    if seg_type == "labelmap":  # a class of objects that dciodvfy does not know yet
        errors = [e for e in errors if "is not segmentation" not in e]
    assert errors == []
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_another_word_makes_another_report(result, tmp_path):
    """The same UIDs if, and only if, it says the same."""
    others = [
        replace(result, warnings=("another warning",)),
        replace(result, trust=TRUST | {"score": 0.5}),
        replace(
            result, classification=Classification({"benign": 0.25, "malignant": 0.75})
        ),
        replace(result, channels=("CT",)),
    ]
    uids = {
        pydicom.dcmread(written(each, tmp_path)).SOPInstanceUID
        for each in (result, replace(result), *others)
    }
    assert len(uids) == 1 + len(others)


def test_a_whole_report_is_valid(result, tmp_path):
    assert errors_of(written(result, tmp_path)) == []


def test_regions_in_a_label_map_are_reported_by_label(tmp_path):
    folder = write_series(tmp_path / "case")
    result = result_of(folder, segments={"both": (1, 2)}, seg_type="labelmap")
    kinds = [
        group.tracking_identifier
        for group in groups_of(written(result, tmp_path)).values()
    ]
    assert [kind.split(" 0123")[0] for kind in kinds] == list(NAMES)


def test_multi_frame_and_anonymous_sources_are_reported(tmp_path):
    positions = [(-10.5, 20.25, 2.0 * number) for number in range(4)]
    folders = [
        save(tmp_path / "frames", [enhanced(positions, **PATIENT)]),
        write_series(tmp_path / "nobody", anonymous=True, SeriesInstanceUID=None),
    ]
    for folder in folders:
        assert errors_of(written(result_of(folder), folder.parent)) == []


def test_names_of_every_kind_are_written(tmp_path):
    folder = write_series(tmp_path / "case")
    names = {"肝臓": 1, "a" * 90: 2, "back\\slash\nline": 7}
    result = replace(
        result_of(folder, names=names),
        classification=Classification({"ü" * 70: 0.5, "b\\c": 0.5}),
    )
    assert errors_of(written(result, tmp_path)) == []


def test_a_case_of_other_files_is_refused(tmp_path):
    folder = write_series(tmp_path / "case")
    result = result_of(folder)
    object.__setattr__(result, "source", None)
    with pytest.raises(DataError, match="sr refers to a DICOM series"):
        write_report(result, tmp_path / "a.sr.dcm")
    assert isinstance(result.labels, Volume)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("ct-jpeg2000", marks=pytest.mark.slow),
        "mr-study/11_HCropVolume",
    ],
)
def test_reports_on_real_series_are_valid(data_root, tmp_path, name):
    """Blank UIDs, JPEG 2000, oblique planes."""
    folder = data_root / "dicom" / name
    shape = read_volume(folder).shape
    labels = np.zeros(shape, np.uint8)
    middle = tuple(slice(size // 3, size // 2) for size in shape)
    labels[middle] = 1
    labels[:, : shape[1] // 4, : shape[2] // 4] = 2
    result = result_of(folder, labels)
    path = written(result, tmp_path)
    assert errors_of(path) == []
    groups = groups_of(path)
    volume, _ = numbers_of(groups[1])["Volume"]
    assert volume == pytest.approx(
        np.sum(labels == 1) * result.labels.voxel_ml, rel=1e-5
    )
    assert "Volume" not in numbers_of(groups[2])
