"""`CASE.sr.dcm`: what was measured as a DICOM structured report (PS3.3 A.35.13, PS3.16
TID 1500), built by highdicom. Its groups refer to the segments of `CASE.seg.dcm`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from trivox.optional import optional_package
from trivox.results.case import CaseResult
from trivox.results.measuring.rows import StructureRow
from trivox.results.measuring.structures import measure_structures
from trivox.results.objects import (
    MANUFACTURER,
    complete,
    dated,
    instance_uid,
    private_scheme,
    research_text,
    series_uid,
    short,
    write_object,
)
from trivox.results.reporting.groups import Groups
from trivox.results.segmentation import KIND as SEGMENTATION
from trivox.results.segmentation import Segment, segments_of
from trivox.results.source_series import (
    PATIENT,
    STUDY,
    SourceSeries,
    required_source,
    uid_of,
)
from trivox.volumes.dicom.files import quiet

KIND = "sr"
SERIES_NUMBER = 9003
"""Of reports, far from those of scanners."""
_LABEL_MAP_STORAGE = "1.2.840.10008.5.1.4.1.1.66.7"
"""Label Map Segmentation Storage, which pydicom 3.0 does not name."""
_PROCEDURES = {
    "CT": codes.cid100.CTUnspecifiedBodyRegion,
    "MR": codes.cid100.MRIUnspecifiedBodyRegion,
    "PT": codes.cid100.PETUnspecifiedBodyRegion,
    "NM": codes.cid100.NMUnspecifiedBodyRegion,
}
"""What is reported, by modality (PS3.16 CID 100)."""


def write_report(result: CaseResult, out: Path) -> Sequence[str]:
    """Write the report of a case to `out`; returns what has to be said of it.

    Raises `DataError` for a case without a series to refer to, `ResourceError` where
    highdicom is missing.
    """
    highdicom = optional_package("highdicom", extra="dicom")
    source = required_source(result.source, KIND)
    segments = segments_of(result)
    rows = _rows(result, segments)
    with quiet():
        dataset = _built(highdicom, result, source, segments, rows)
        complete(dataset, result, source)
        dataset.SeriesDescription = research_text("Measurements")
        dataset.CodingSchemeIdentificationSequence = [private_scheme()]
    write_object(out, dataset, ExplicitVRLittleEndian)
    return ()


def _rows(result: CaseResult, segments: Sequence[Segment]) -> dict[str, StructureRow]:
    """What was measured of each segment; a label map has labels where a model has
    regions.
    """
    others = [each.label for each in segments if each.label not in result.structures]
    if not others:
        return result.structures
    assert result.labels is not None
    more = measure_structures(
        result.labels,
        {name: (result.names[name],) for name in others},
        result.image,
        channels=result.channels,
        absent=result.case.absent,
    )
    return result.structures | more


def _built(
    highdicom: Any,
    result: CaseResult,
    source: SourceSeries,
    segments: Sequence[Segment],
    rows: dict[str, StructureRow],
) -> Any:
    """The report as highdicom makes it."""
    segmentation = _segmentation(result, source)
    groups = Groups(highdicom, result, source, segmentation)
    measured = [groups.of_segment(each, rows[each.label]) for each in segments]
    modality = str(source.first.get("Modality", ""))
    content = highdicom.sr.MeasurementReport(
        observation_context=_observer(highdicom, result),
        procedure_reported=_PROCEDURES.get(modality, codes.cid100.ImagingProcedure),
        imaging_measurements=[*measured, groups.of_case()],
        title=codes.DCM.ImagingMeasurementReport,
    )
    report = highdicom.sr.Comprehensive3DSR(
        evidence=[segmentation, *_images(source)],
        content=content[0],
        series_instance_uid=series_uid(result, source, KIND),
        series_number=SERIES_NUMBER,
        sop_instance_uid=instance_uid(result, source, KIND),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
    )
    report.ContentDate, report.ContentTime = dated(source)
    report.pop("ContributingEquipmentSequence", None)
    return report


def _observer(highdicom: Any, result: CaseResult) -> Any:
    """Who measured: the model, a device (PS3.16 TID 1004)."""
    model = result.model
    device = highdicom.sr.DeviceObserverIdentifyingAttributes(
        uid=uid_of("device", model.sha256),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=short(model.name),
        serial_number=model.sha256,
    )
    context = highdicom.sr.ObserverContext(
        observer_type=codes.DCM.Device, observer_identifying_attributes=device
    )
    return highdicom.sr.ObservationContext(observer_device_context=context)


def _segmentation(result: CaseResult, source: SourceSeries) -> Dataset:
    """The segmentation that is referred to, as far as references name it."""
    is_map = result.options.seg_type == "labelmap"
    segmentation = _evidence(source)
    segmentation.SOPClassUID = _LABEL_MAP_STORAGE if is_map else SegmentationStorage
    segmentation.SOPInstanceUID = instance_uid(result, source, SEGMENTATION)
    segmentation.SeriesInstanceUID = series_uid(result, source, SEGMENTATION)
    return segmentation


def _images(source: SourceSeries) -> list[Dataset]:
    images = []
    for each in source.datasets:
        image = _evidence(source)
        image.SOPClassUID = each.SOPClassUID
        image.SOPInstanceUID = each.SOPInstanceUID
        image.SeriesInstanceUID = source.first.SeriesInstanceUID
        images.append(image)
    return images


def _evidence(source: SourceSeries) -> Dataset:
    """An object of the source's study, without a word of its patient: `complete` adds
    that.
    """
    evidence = Dataset()
    for keyword in (*PATIENT, *STUDY):
        setattr(evidence, keyword, "")
    evidence.StudyInstanceUID = source.first.StudyInstanceUID
    return evidence
