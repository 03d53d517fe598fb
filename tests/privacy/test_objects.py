"""A DICOM object without the person: nothing of what identified it is left, what its
image needs is.
"""

import numpy as np
import pydicom
import pytest
from pydicom.sequence import Sequence
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from dicom_slices import COLUMNS, ROWS, compress, enhanced, one, save, slice_of
from privacy.canaries import planted, with_private
from segmentation_files import seg
from trivox.errors import FormatError
from trivox.privacy.dates import cleaned_date, cleaned_moment, cleaned_time
from trivox.privacy.key import Key
from trivox.privacy.objects import AsideError, cleaned_object
from trivox.volumes.dicom.files import quiet
from trivox.volumes.dicom.native import native_decoder

KEY = Key(b"0123456789abcdef")


def cleaned(tmp_path, dataset, dates="remove", key=KEY):
    (file,) = save(tmp_path / "objects", [dataset]).iterdir()
    with native_decoder() as native:
        result = cleaned_object(file, key, dates, native)
    file.unlink()
    (tmp_path / "cleaned.dcm").write_bytes(result.content)
    return result, pydicom.dcmread(tmp_path / "cleaned.dcm")


def test_nothing_that_was_planted_survives(tmp_path):
    dataset = slice_of(1, BurnedInAnnotation="NO")
    with quiet():
        canaries = planted(dataset) | with_private(dataset)
    assert len(canaries) > 2000
    result, _ = cleaned(tmp_path, dataset)
    survivors = [text for text in canaries if text.encode() in result.content]
    assert survivors == []


def test_nothing_deep_in_reports_survives(tmp_path):
    dataset = slice_of(1)
    item = one(ValueType="CONTAINER")
    item[0].ContentSequence = one(ValueType="TEXT", TextValue="CANARYTEXT")
    item[0].ContentSequence.append(one(ValueType="PNAME", PersonName="CANARYNAME")[0])
    coded = one(
        ValueType="CODE",
        ConceptNameCodeSequence=one(
            CodeValue="121071",
            CodingSchemeDesignator="DCM",
            CodeMeaning="CANARYMEANING",
        ),
    )
    coded[0].ConceptCodeSequence = one(
        CodeValue="CANARYCODE", CodingSchemeDesignator="99CANARY", CodeMeaning="CANARY"
    )
    item[0].ContentSequence.append(coded[0])
    dataset.ContentSequence = item
    result, read = cleaned(tmp_path, dataset)
    assert b"CANARY" not in result.content
    assert len(read.ContentSequence) == 1
    assert len(read.ContentSequence[0].ContentSequence) == 0


def test_items_of_reports_stay_if_they_are_whole(tmp_path):
    dataset = slice_of(1)
    name = {
        "ConceptNameCodeSequence": one(
            CodeValue="121071", CodingSchemeDesignator="DCM", CodeMeaning="Finding"
        )
    }
    image = one(ReferencedSOPClassUID="1.2.9", ReferencedSOPInstanceUID="1.2.10")
    point = {"GraphicType": "POINT", "GraphicData": [1.0, 2.0]}
    whole = [
        one(ValueType="SCOORD", **point),
        one(ValueType="IMAGE", ReferencedSOPSequence=image),
        one(ValueType="UIDREF", UID="1.2.11", **name),
    ]
    lacking = [
        one(ValueType="SCOORD", **name),
        one(ValueType="IMAGE", **name),
        one(ValueType="UIDREF", **name),
        one(ValueType="UIDREF", UID="1.2.11"),
    ]
    dataset.ContentSequence = Sequence([items[0] for items in (*whole, *lacking)])
    _, read = cleaned(tmp_path, dataset)
    kinds = [item.ValueType for item in read.ContentSequence]
    assert kinds == ["SCOORD", "IMAGE", "UIDREF"]
    assert list(read.ContentSequence[0].GraphicData) == [1.0, 2.0]


def test_pixels_carry_nothing_beside_the_image(tmp_path):
    dataset = slice_of(1)
    pixels = np.frombuffer(dataset.PixelData, "<u2").reshape(ROWS, COLUMNS)
    dataset.PixelData = (pixels | 0xF000).tobytes() + b"CANARY"
    _, read = cleaned(tmp_path, dataset)
    np.testing.assert_array_equal(read.pixel_array, pixels)
    assert len(read.PixelData) == pixels.nbytes


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLosslessSV1, RLELossless])
def test_compressed_pixels_become_plain_ones(tmp_path, syntax):
    dataset = slice_of(2)
    pixels = dataset.pixel_array.copy()
    compress(dataset, syntax)
    _, read = cleaned(tmp_path, dataset)
    np.testing.assert_array_equal(read.pixel_array, pixels)
    assert not read.file_meta.TransferSyntaxUID.is_compressed


def test_every_frame_of_a_file_stays(tmp_path):
    dataset = enhanced([(0, 0, 2.0 * number) for number in range(3)])
    _, read = cleaned(tmp_path, dataset)
    assert read.NumberOfFrames == 3
    np.testing.assert_array_equal(read.pixel_array, dataset.pixel_array)


def test_bits_stay_where_they_were(tmp_path):
    masks = np.random.default_rng(0).random((1, 3, 5, 7)) < 0.5  # 35 bits a frame
    dataset = seg(tmp_path / "seg.dcm", masks, np.eye(4), names=["a"])
    _, read = cleaned(tmp_path, dataset)
    np.testing.assert_array_equal(read.pixel_array, dataset.pixel_array)
    np.testing.assert_array_equal(read.pixel_array, masks[0])


def test_blank_uids_become_pseudonyms(tmp_path):
    blank = slice_of(1, PatientID="a", SeriesInstanceUID="", StudyInstanceUID="")
    _, read = cleaned(tmp_path, blank)
    _, again = cleaned(tmp_path, blank)
    _, other = cleaned(tmp_path, blank, key=Key(b"another key of 16"))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        assert read[keyword].value.startswith("2.25.")
        assert read[keyword].value == again[keyword].value != other[keyword].value
    assert read.StudyInstanceUID != read.SeriesInstanceUID


def test_what_an_image_needs_stays(tmp_path):
    dataset = slice_of(3, KVP="120", Manufacturer="Siemens Healthineers", PatientID="a")
    _, read = cleaned(tmp_path, dataset)
    for keyword in ("ImagePositionPatient", "PixelSpacing", "RescaleIntercept", "KVP"):
        assert read[keyword].value == dataset[keyword].value
    assert read.Manufacturer == "SIEMENS"
    assert read.PatientIdentityRemoved == "YES"
    assert read.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert read.StudyDate == ""
    assert read.LongitudinalTemporalInformationModified == "REMOVED"


def test_references_follow_and_the_standards_uids_stay(tmp_path):
    source = slice_of(1, FrameOfReferenceUID="1.2.7", StudyInstanceUID="1.2.8")
    later = slice_of(2, FrameOfReferenceUID="1.2.7", StudyInstanceUID="1.2.8")
    later.ReferencedImageSequence = one(
        ReferencedSOPClassUID=source.SOPClassUID,
        ReferencedSOPInstanceUID=source.SOPInstanceUID,
    )
    _, first = cleaned(tmp_path, source)
    _, second = cleaned(tmp_path, later)
    assert first.SOPClassUID == source.SOPClassUID
    reference = second.ReferencedImageSequence[0]
    assert reference.ReferencedSOPInstanceUID == first.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == source.SOPClassUID
    for keyword in ("FrameOfReferenceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        assert first[keyword].value == second[keyword].value != source[keyword].value
    _, other = cleaned(tmp_path, source, key=Key(b"another key of 16"))
    assert other.SOPInstanceUID != first.SOPInstanceUID


def test_names_of_structures_stay_where_many_files_share_them(tmp_path):
    dataset = slice_of(1)
    dataset.StructureSetROISequence = one(ROINumber="3", ROIName="Left_Lung")
    dataset.StructureSetROISequence.append(one(ROINumber="4", ROIName="Miller 1")[0])
    _, read = cleaned(tmp_path, dataset)
    names = [item.ROIName for item in read.StructureSetROISequence]
    assert names == ["left lung", "structure 4"]


ASIDE = {
    "burnt in": {"BurnedInAnnotation": "YES"},
    "screen": {"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]},
    "colours": {"SamplesPerPixel": 3},
    "class": {"SOPClassUID": SecondaryCaptureImageStorage},
    "X-ray": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1"},
    "tables": {"ModalityLUTSequence": one(LUTExplanation="CANARY")},
}


@pytest.mark.parametrize("kind", ASIDE)
def test_what_may_show_a_name_is_set_aside(tmp_path, kind):
    dataset = slice_of(1, **ASIDE[kind])
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    with pytest.raises(AsideError):
        cleaned(tmp_path, dataset)


def test_damaged_objects_are_named_without_their_values(tmp_path):
    dataset = slice_of(1, PatientName="CANARY")
    dataset.PixelData = dataset.PixelData[:100]
    with pytest.raises(FormatError) as caught:
        cleaned(tmp_path, dataset)
    assert "CANARY" not in str(caught.value)


def test_sequences_without_end_are_set_aside(tmp_path):
    dataset = slice_of(1)
    deepest = one(ValueType="CONTAINER")
    for _ in range(40):
        deepest = one(ValueType="CONTAINER", ContentSequence=deepest)
    dataset.ContentSequence = deepest
    with pytest.raises(AsideError, match="deep"):
        cleaned(tmp_path, dataset)


def test_dates_of_a_patient_move_together(tmp_path):
    first = slice_of(1, PatientID="a", StudyDate="20200310", ContentDate="20200311")
    second = slice_of(2, PatientID="a", StudyDate="20200410", ContentDate="20200411")
    moved = [cleaned(tmp_path, each, "shift")[1] for each in (first, second)]
    days = [
        np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:]}") for d in (e.StudyDate for e in moved)
    ]
    assert days[1] - days[0] == np.timedelta64(31, "D")
    assert moved[0].StudyDate < first.StudyDate
    kept = cleaned(tmp_path, first, "keep")[1]
    assert kept.StudyDate == first.StudyDate
    said = {"MODIFIED": (moved[0], "113107"), "UNMODIFIED": (kept, "113106")}
    for temporal, (read, option) in said.items():
        assert read.LongitudinalTemporalInformationModified == temporal
        codes = [each.CodeValue for each in read.DeidentificationMethodCodeSequence]
        assert codes == ["113100", option]


def test_dates_and_times_are_taken_out_unless_they_are_asked_for(tmp_path):
    given = {
        "StudyDate": "20200310",
        "StudyTime": "101112",
        "AcquisitionTime": "131415.5",
        "RadiopharmaceuticalStartDateTime": "20200310101112",
    }
    _, read = cleaned(tmp_path, slice_of(1, PatientID="a", **given))
    assert [read.get(keyword) or "" for keyword in given] == [""] * len(given)
    assert cleaned_date("StudyDate", "20200310", "remove", 5) == ""
    assert cleaned_time("StudyTime", "101112", "remove") == ""
    moment = cleaned_moment("AcquisitionDateTime", "20200310101112", "remove", 5)
    assert moment == "19000101000000"


def test_a_text_in_the_place_of_a_number_does_not_stay(tmp_path):
    template = one(TemplateIdentifier="CANARY", MappingResource="DCMR")
    template.append(one(TemplateIdentifier="1500")[0])
    report = {"ValueType": "CONTAINER", "ContentTemplateSequence": template}
    pointers = one(DimensionIndexPointer=0x00290010)
    pointers.append(one(DimensionIndexPointer=0x00200032)[0])
    dataset = slice_of(
        1, ContentSequence=one(**report), DimensionIndexSequence=pointers
    )
    dataset.FrameIncrementPointer = 0x3004000C  # as doses have it
    dataset.add_new("KVP", "LO", "CANARY")
    dataset.add_new("WindowCenter", "SH", ["40", "CANARY"])
    result, read = cleaned(tmp_path, dataset)
    assert b"CANARY" not in result.content
    assert not read.KVP
    assert read.FrameIncrementPointer == 0x3004000C
    assert "WindowCenter" not in read  # half of what was said is another thing
    bad, good = read.ContentSequence[0].ContentTemplateSequence
    assert ("TemplateIdentifier" in bad, good.TemplateIdentifier) == (False, "1500")
    private, known = read.DimensionIndexSequence
    assert "DimensionIndexPointer" not in private
    assert known.DimensionIndexPointer == 0x00200032


def test_dates_that_are_none_are_not_kept():
    for rule in ("keep", "shift", "remove"):
        assert cleaned_date("StudyDate", "CANARY", rule, 5) == ""
        assert cleaned_date("StudyDate", "20201399", rule, 5) == ""
        assert cleaned_time("StudyTime", "noon", rule) == ""
        assert cleaned_moment("FrameAcquisitionDateTime", "x", rule, 5).isdigit()
    assert cleaned_date("StudyDate", "20200301", "shift", 1) == "20200229"
    assert cleaned_moment("x", "20200301120000.5+0100", "shift", 1).startswith(
        "20200229"
    )
