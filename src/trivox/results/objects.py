"""What all DICOM objects of ours have in common: whose they are, who made them, when,
and under which UIDs.

Nothing in them depends on the moment: the same input and model give the same bytes.
Patient and study are the source's, never the scanner (DICOM PS3.3 C.7.1.1, C.7.2.1,
C.7.5.2, C.12.1).
"""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds

from trivox.errors import visible
from trivox.files import write_bytes
from trivox.results.case import CaseResult
from trivox.results.codes import PRIVATE_SCHEME, Concept, LabelCode, cut
from trivox.results.identity import ModelIdentity
from trivox.results.source_series import (
    COPIED,
    PATIENT,
    STUDY,
    SourceSeries,
    is_of_kind,
    uid_of,
)
from trivox.version import NOTICE, __version__
from trivox.volumes.dicom.attributes import text
from trivox.volumes.dicom.files import quiet

MANUFACTURER = "trivox"
IMPLEMENTATION = UID("2.25.283334955791277955239492244943194656744")
"""Names trivox among the programs that write DICOM files (PS3.7 D.3.3.2)."""
FAMILY = Concept(value="123110", scheme="DCM", meaning="Artificial Intelligence")
"""Kind of algorithm (PS3.16 CID 7162)."""
OF_LABELS = ("dicom-seg", "rtstruct")
"""Kinds of objects that hold labels, and nothing of how sure they are."""
UNICODE = "ISO_IR 192"
_DATES = ("Content", "Acquisition", "Series", "Study")
"""What an object is dated by: the first of these that its source states."""
_UNDATED = "19000101"
_MIDNIGHT = "000000"


def complete(dataset: Dataset, result: CaseResult, source: SourceSeries) -> None:
    """Fill in patient, study, equipment and dates; whatever else it said of them before
    is replaced.
    """
    first = source.first
    for keyword in (*PATIENT, *STUDY, *COPIED):
        if keyword in dataset:
            del dataset[keyword]
        if keyword in first:
            setattr(dataset, keyword, first[keyword].value)
    dataset.StudyInstanceUID = first.StudyInstanceUID
    dataset.SpecificCharacterSet = UNICODE
    labels = {*result.names, *result.segments}
    if result.options.codes.private(labels):
        dataset.CodingSchemeIdentificationSequence = [private_scheme()]
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = short(result.model.name)
    dataset.DeviceSerialNumber = result.model.sha256
    dataset.SoftwareVersions = result.model.version
    if "InstanceCreationDate" in dataset:
        del dataset.InstanceCreationDate
        del dataset.InstanceCreationTime


def private_scheme() -> Dataset:
    """What trivox's own scheme of codes is (PS3.3 C.12.1.1)."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator = PRIVATE_SCHEME
    scheme.CodingSchemeName = "Labels of models made by trivox"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    return scheme


def dated(source: SourceSeries) -> tuple[str, str]:
    """Date and time of the source, `19000101` and midnight where it states none."""
    for event in _DATES:
        date = text(source.first, f"{event}Date")
        time = text(source.first, f"{event}Time")
        if date and is_of_kind("DA", date):
            return date, time if time and is_of_kind("TM", time) else _MIDNIGHT
    return _UNDATED, _MIDNIGHT


def short(words: str) -> str:
    """A text as a value of VR LO takes it: one short line, no backslash."""
    plain = visible(words).replace("\\", "/")
    return cut(" ".join(plain.split()))


def research_text(what: str) -> str:
    """A description that says what an object is, and that it is no medical device's."""
    return short(f"{NOTICE} {what}")


def series_uid(result: CaseResult, source: SourceSeries, kind: str) -> str:
    """Of the series that an object of a kind is alone in."""
    return uid_of("series", kind, source.identity, _digest(result, kind))


def instance_uid(result: CaseResult, source: SourceSeries, kind: str) -> str:
    """Of an object of a kind."""
    return uid_of("object", kind, source.identity, _digest(result, kind))


def _digest(result: CaseResult, kind: str) -> str:
    """What an object of a kind says, as a hash."""
    return result.labels_digest if kind in OF_LABELS else result.digest


def tracking_uid(result: CaseResult, source: SourceSeries, label: str) -> str:
    """Of what a model finds under a label in a series, whatever object tells of it."""
    series = source.first.SeriesInstanceUID
    return uid_of("tracking", series, result.model.sha256, label)


def tracking_id(result: CaseResult, label: str) -> str:
    """The same for people."""
    return short(f"{label} {result.model.sha256[:8]}")


def coded(concept: Concept) -> Dataset:
    """An item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue = concept.value
    item.CodingSchemeDesignator = concept.scheme
    item.CodeMeaning = short(concept.meaning)
    return item


def type_of(code: LabelCode) -> Dataset:
    """What a label is, with its side (PS3.3 C.8.20.2.3)."""
    item = coded(code.type)
    if code.modifier is not None:
        item.SegmentedPropertyTypeModifierCodeSequence = [coded(code.modifier)]
    return item


def algorithm_of(model: ModelIdentity) -> Dataset:
    """The item that identifies the model behind an object (PS3.3 10.16)."""
    algorithm = Dataset()
    algorithm.AlgorithmFamilyCodeSequence = [coded(FAMILY)]
    algorithm.AlgorithmName = short(model.name)
    algorithm.AlgorithmVersion = model.version
    algorithm.AlgorithmParameters = f"model_sha256={model.sha256}"
    algorithm.AlgorithmSource = MANUFACTURER
    return algorithm


def number_text(value: float) -> str:
    """A number of VR DS, as exact as its 16 characters allow."""
    return str(format_number_as_ds(float(value)))


def number_texts(values: Iterable[float]) -> list[str]:
    """Several of them."""
    return [number_text(value) for value in values]


def referenced_series(source: SourceSeries) -> Dataset:
    """The item of ReferencedSeriesSequence (PS3.3 C.12.1.3.1): the source and all files
    that the image was made of.
    """
    series = Dataset()
    series.SeriesInstanceUID = source.first.SeriesInstanceUID
    series.ReferencedInstanceSequence = [reference(each) for each in source.datasets]
    return series


def reference(dataset: Any, frame: int | None = None) -> Dataset:
    """A reference to an image, or to one of its frames, from 0 (PS3.3 10.3)."""
    item = Dataset()
    item.ReferencedSOPClassUID = dataset.SOPClassUID
    item.ReferencedSOPInstanceUID = dataset.SOPInstanceUID
    if frame is not None:
        item.ReferencedFrameNumber = frame + 1
    return item


def write_object(path: Path, dataset: Dataset, syntax: str) -> None:
    """Write an object as a DICOM file (PS3.10), atomically and reproducibly."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID = IMPLEMENTATION
    meta.ImplementationVersionName = f"TRIVOX {__version__}"[:16]
    dataset.file_meta = meta
    content = BytesIO()
    with quiet():
        dcmwrite(content, dataset, enforce_file_format=True)
    write_bytes(path, content.getvalue())
