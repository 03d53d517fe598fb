"""`CASE.rtstruct.dcm`: what was found as a structure set (DICOM PS3.3 A.19): closed
contours in the planes of the source, with the frames that they lie on.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage

from trivox.results.case import CaseResult
from trivox.results.codes import LabelCode, uncoded
from trivox.results.contours import Contour, contours_of
from trivox.results.objects import (
    MANUFACTURER,
    algorithm_of,
    complete,
    dated,
    instance_uid,
    reference,
    research_text,
    series_uid,
    short,
    type_of,
    write_object,
)
from trivox.results.source_series import SourceSeries, required_source
from trivox.version import NOTICE
from trivox.volumes.dicom.files import quiet

KIND = "rtstruct"
SERIES_NUMBER = 9002
"""Of structure sets, far from those of scanners."""
_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
"""Class of the study that images are of; retired, and still what readers expect (PS3.3
C.8.8.5)."""
CONTOUR_DATA: BaseTag = Tag("ContourData")
_DECIMALS = 5
"""Of mm: finer than any voxel, and numbers stay within 16 characters."""


def write_structures(result: CaseResult, out: Path) -> tuple[str, ...]:
    """Write the structure set of a case to `out`; returns what has to be said of it.

    Raises `DataError` for a case without a series to refer to.
    """
    source = required_source(result.source, KIND)
    codes = result.options.codes
    labels = {
        name: codes.of(name, number)
        for number, name in enumerate(result.segments, start=1)
    }
    with quiet():
        dataset = _structure_set(result, source, labels)
        complete(dataset, result, source)
    # explicit lengths of a contour's numbers end at 64 KiB
    write_object(out, dataset, ImplicitVRLittleEndian)
    private = [name for name, code in labels.items() if code.is_private]
    return (*source.repairs, *uncoded(private))


def _structure_set(
    result: CaseResult, source: SourceSeries, labels: dict[str, LabelCode]
) -> Dataset:
    date, time = dated(source)
    dataset = Dataset()
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = instance_uid(result, source, KIND)
    dataset.SeriesInstanceUID = series_uid(result, source, KIND)
    dataset.SeriesNumber = SERIES_NUMBER
    dataset.SeriesDescription = research_text("Structures")
    dataset.Modality = "RTSTRUCT"
    dataset.OperatorsName = ""
    dataset.InstanceNumber = 1
    dataset.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    dataset.PositionReferenceIndicator = ""
    dataset.StructureSetLabel = MANUFACTURER
    dataset.StructureSetName = short(result.model.name)
    dataset.StructureSetDescription = f"{NOTICE} {len(labels)} labels"
    dataset.StructureSetDate = date
    dataset.StructureSetTime = time
    dataset.ApprovalStatus = "UNAPPROVED"
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(source)]
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    for number, (name, code) in enumerate(labels.items(), start=1):
        dataset.StructureSetROISequence.append(_region(result, source, number, name))
        dataset.ROIContourSequence.append(_outline(result, source, number, name, code))
        dataset.RTROIObservationsSequence.append(_observation(number, code))
    return dataset


def _frame_of_reference(source: SourceSeries) -> Dataset:
    """The images that contours lie on (PS3.3 C.8.8.5)."""
    series = Dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    planes = range(len(source.frames))
    series.ContourImageSequence = [reference(*source.image_of(z)) for z in planes]
    study = Dataset()
    study.ReferencedSOPClassUID = _DETACHED_STUDY
    study.ReferencedSOPInstanceUID = source.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _region(
    result: CaseResult, source: SourceSeries, number: int, name: str
) -> Dataset:
    """What a region is called and who drew it (PS3.3 C.8.8.5)."""
    region = Dataset()
    region.ROINumber = number
    region.ReferencedFrameOfReferenceUID = source.first.FrameOfReferenceUID
    region.ROIName = short(name)
    region.ROIDescription = NOTICE
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    region.ROIGenerationDescription = short(f"trivox: {result.model.name}")
    algorithm = algorithm_of(result.model)
    region.ROIDerivationAlgorithmIdentificationSequence = [algorithm]
    return region


def _outline(
    result: CaseResult, source: SourceSeries, number: int, name: str, code: LabelCode
) -> Dataset:
    """The contours of a region (PS3.3 C.8.8.6); none where it was not found."""
    assert result.labels is not None
    outline = Dataset()
    assert code.color is not None
    outline.ROIDisplayColor = list(code.color)
    mask = np.isin(result.labels.array[0], result.segments[name])
    contours = [_contour(source, contour) for contour in contours_of(mask)]
    for place, contour in enumerate(contours, start=1):
        contour.ContourNumber = place
    if contours:
        outline.ContourSequence = contours
    outline.ReferencedROINumber = number
    return outline


def _contour(source: SourceSeries, contour: Contour) -> Dataset:
    item = Dataset()
    item.ContourImageSequence = [reference(*source.image_of(contour.z))]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(contour.points)
    item[CONTOUR_DATA] = _numbers(in_patient(source, contour))
    return item


def _numbers(points: NDArray[np.float64]) -> RawDataElement:
    """ContourData as it stands in a file, since an object a number takes much memory."""
    texts = (f"{value:.{_DECIMALS}f}" for value in points.ravel())
    value = "\\".join(texts).encode("ascii")
    value += b" " * (len(value) % 2)
    return RawDataElement(CONTOUR_DATA, "DS", len(value), value, 0, True, True)


def in_patient(source: SourceSeries, contour: Contour) -> NDArray[np.float64]:
    """Where the points of a contour lie, `(n, 3)`, LPS mm (PS3.3 C.7.6.2.1.1)."""
    row_mm, column_mm = source.spacing
    rows, columns = contour.points.T
    along_rows = np.outer(columns * column_mm, source.orientation[:3])
    along_columns = np.outer(rows * row_mm, source.orientation[3:])
    points: NDArray[np.float64] = (
        source.positions[contour.z] + along_rows + along_columns
    )
    return points


def _observation(number: int, code: LabelCode) -> Dataset:
    """What a region stands for (PS3.3 C.8.8.8)."""
    observation = Dataset()
    observation.ObservationNumber = number
    observation.ReferencedROINumber = number
    observation.RTROIInterpretedType = ""
    observation.ROIInterpreter = ""
    observation.RTROIIdentificationCodeSequence = [type_of(code)]
    return observation
