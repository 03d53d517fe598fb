"""The DICOM series that a case was read from, ready to be referred to.

Objects about a series carry its patient and study, and name its images by their UIDs.
What is missing or blank there is made up from what the files are, always the same, so
that two objects about one series agree; it is said in `repairs`.
"""

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.config import RAISE
from pydicom.valuerep import validate_value

from trivox.datasets.dataset import Case
from trivox.errors import DataError
from trivox.files import file_hash
from trivox.volumes.dicom.attributes import number, text
from trivox.volumes.dicom.files import class_of, load, quiet
from trivox.volumes.dicom.frames import Frame
from trivox.volumes.dicom.multiframe import MEASURES, UNPLACED, sources_of_frames
from trivox.volumes.dicom.reading import DicomSeries
from trivox.volumes.dicom.stack import Stack
from trivox.volumes.dicom.steps import usual_step
from trivox.volumes.formats import is_dicom_image
from trivox.volumes.header import reading
from trivox.volumes.volume import Shape

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "StudyID",
)
"""Attributes that every object has, if only empty (type 2)."""
COPIED = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "StudyDescription",
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
)
"""What else objects take over of patient and study, where the source has it."""
_SEXES = ("", "M", "F", "O")
_FORMATTED = ("AS", "CS", "DA", "DS", "TM")
"""Kinds of values that follow a pattern."""
_STANDING_IN = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
"""Class of an image by its modality, where no header says it."""
_SECONDARY = "1.2.840.10008.5.1.4.1.1.7"


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """A series of images in the order of the volume's planes.

    datasets: pydicom datasets without pixels, one a file, in the order in which the
    planes first need them; frames: for each z the number of its dataset and, in it, of
    its frame, from 0; positions: of the first voxel of each plane, LPS mm; orientation:
    direction of increasing column, then of increasing row; spacing: mm between rows and
    between columns; step: mm from plane to plane along their normal, 0 of one;
    thickness: mm, as the header says, else the step; affine: voxel index `(x, y, z, 1)`
    to RAS mm; repairs: what was made up where the headers are blank, a sentence each;
    placed: whether the images say where they lie.
    """

    datasets: tuple[Any, ...]
    frames: tuple[tuple[int, int], ...]
    positions: tuple[NDArray[np.float64], ...]
    orientation: NDArray[np.float64]
    spacing: tuple[float, float]
    step: float
    thickness: float
    affine: NDArray[np.float64]
    shape: Shape
    repairs: tuple[str, ...] = ()
    placed: bool = True

    @property
    def first(self) -> Any:
        """The dataset of the first plane: patient, study and series are its."""
        return self.datasets[0]

    @cached_property
    def identity(self) -> str:
        """A hash over what objects take over of the series: its patient and study, and
        the images that they refer to.
        """
        keywords = (*PATIENT, *STUDY, *COPIED, "StudyInstanceUID", "SeriesInstanceUID")
        facts = [text(self.first, keyword) for keyword in keywords]
        return uid_of(*facts, *_instances(self.datasets))

    def image_of(self, z: int) -> tuple[Any, int | None]:
        """The dataset of a plane and its frame in it, from 0; None in a file of one."""
        number, frame = self.frames[z]
        dataset = self.datasets[number]
        return dataset, frame if "NumberOfFrames" in dataset else None


def series_of_case(case: Case) -> SourceSeries | None:
    """The series of the first channel; None for a case of files of other formats.

    Raises `FormatError` and `GeometryError` as reading the case does.
    """
    if not case.images or not is_dicom_image(case.images[0]):
        return None
    return read_source(case.images[0], DicomSeries(case.choice))


def read_source(path: Path, series: DicomSeries) -> SourceSeries:
    """The headers of a series, in order and without gaps in what objects need."""
    with reading(path), quiet():
        stack = series.stack(path)
        planes = [place[0] for place in stack.places]
        files = list(dict.fromkeys(frame.path for frame in planes))
        datasets = [load(file, pixels=False) for file in files]
        repairs = _repaired(datasets, files)
    numbers = {file: number for number, file in enumerate(files)}
    frames = tuple((numbers[frame.path], frame.index) for frame in planes)
    first = planes[0]
    positions, orientation = _places(planes)
    step = _step(positions, orientation)
    return SourceSeries(
        datasets=tuple(datasets),
        frames=frames,
        positions=positions,
        orientation=orientation,
        spacing=first.spacing,
        step=step,
        thickness=_thickness(datasets[0]) or step or first.depth or 1.0,
        affine=stack.affine,
        shape=_shape(stack),
        repairs=tuple(repairs),
        placed=_are_placed(planes),
    )


def required_source(source: SourceSeries | None, what: str) -> SourceSeries:
    """A source that objects can lie on; raises `DataError` where there is none."""
    if source is None:
        raise DataError(
            f"{what} refers to a DICOM series, and this case was read from other files; "
            "use --format nifti"
        )
    if not source.placed:
        raise DataError(
            f"{what} needs to know where its images lie, and ImagePositionPatient or "
            "ImageOrientationPatient is missing; use --format nifti"
        )
    return source


def uid_of(*parts: object) -> str:
    """A UID that only depends on `parts` (DICOM PS3.5 B.2, a UUID under 2.25)."""
    joined = "\0".join(str(part) for part in parts)
    digest = hashlib.sha256(joined.encode("utf-8", "backslashreplace")).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"


def _shape(stack: Stack) -> Shape:
    rows, columns = stack.places[0][0].size
    return len(stack.places), rows, columns


def _are_placed(planes: Sequence[Frame]) -> bool:
    known = all(plane.position is not None for plane in planes)
    return known and not any(UNPLACED in plane.remarks for plane in planes)


def _places(
    planes: Sequence[Frame],
) -> tuple[tuple[NDArray[np.float64], ...], NDArray[np.float64]]:
    """Positions and orientation; those of an axial image at the origin where they are
    not known.
    """
    somewhere = np.zeros(3)
    axial = np.array([1.0, 0, 0, 0, 1.0, 0])
    positions = tuple(
        somewhere if plane.position is None else plane.position for plane in planes
    )
    orientation = planes[0].orientation
    return positions, axial if orientation is None else orientation


def _step(
    positions: Sequence[NDArray[np.float64]], orientation: NDArray[np.float64]
) -> float:
    normal = np.cross(orientation[:3], orientation[3:])
    return usual_step(np.array([position @ normal for position in positions]))


def _thickness(dataset: Any) -> float:
    """SliceThickness of the first file, 0 where it says nothing of use."""
    sources = sources_of_frames(dataset)[0]
    return max(number(sources, MEASURES, "SliceThickness", 0.0), 0.0)


# -- repairs ---------------------------------------------------------------------------
def _repaired(datasets: Sequence[Any], files: Sequence[Path]) -> list[str]:
    """Fill what is blank in place; returns what was filled, a sentence each."""
    repairs: list[str] = []
    if _fill_classes(datasets):
        repairs.append("SOPClassUID is blank; taken from the file's header or modality")
    if _fill_instances(datasets, files):
        repairs.append(
            "SOPInstanceUID is blank; taken from the file's header or made of its content"
        )
    repairs += _fill_shared(datasets)
    repairs += _clear_invalid(datasets)
    for dataset in datasets:
        for keyword in (*PATIENT, *STUDY):
            if keyword not in dataset:
                setattr(dataset, keyword, "")
    return repairs


def _clear_invalid(datasets: Sequence[Any]) -> list[str]:
    """Blank what is no value of its kind, which readers would stumble over."""
    cleared: dict[str, None] = {}
    for dataset in datasets:
        for keyword in (*PATIENT, *STUDY, *COPIED):
            if keyword in dataset and not _is_valid(dataset[keyword]):
                del dataset[keyword]
                cleared[keyword] = None
    return [f"{keyword} holds no valid value; left out" for keyword in cleared]


def _is_valid(element: Any) -> bool:
    """Whether a value is one of its kind, by the standard's rules (PS3.5 6.2); texts
    always are: who a patient is, is never left out.
    """
    if element.keyword == "PatientSex":
        return str(element.value or "") in _SEXES
    return element.VR not in _FORMATTED or is_of_kind(element.VR, element.value)


def is_of_kind(kind: str, value: Any) -> bool:
    """Whether a value, or none, is one of a VR; several are not."""
    try:
        validate_value(kind, "" if value is None else str(value), RAISE)
    except (TypeError, ValueError):
        return False
    return True


def _fill_classes(datasets: Sequence[Any]) -> bool:
    blank = [dataset for dataset in datasets if not text(dataset, "SOPClassUID")]
    for dataset in blank:
        usual = _STANDING_IN.get(text(dataset, "Modality"), _SECONDARY)
        dataset.SOPClassUID = class_of(dataset) or usual
    return bool(blank)


def _fill_instances(datasets: Sequence[Any], files: Sequence[Path]) -> bool:
    blank = False
    for dataset, file in zip(datasets, files, strict=True):
        if text(dataset, "SOPInstanceUID"):
            continue
        blank = True
        dataset.SOPInstanceUID = made_instance_uid(dataset, file)
    return blank


def made_instance_uid(dataset: Any, file: Path) -> str:
    """The UID of an object that is blank: that in the header of its file, else one made
    of its content.
    """
    meta = getattr(dataset, "file_meta", None) or {}
    known = str(meta.get("MediaStorageSOPInstanceUID") or "")
    return known or uid_of("instance", file_hash(file))


def _fill_shared(datasets: Sequence[Any]) -> list[str]:
    """Fill UIDs that all images of a series share."""
    repairs: list[str] = []
    for keyword, made_of in (
        ("StudyInstanceUID", _about_study),
        ("SeriesInstanceUID", _about_series),
        ("FrameOfReferenceUID", _about_frame),
    ):
        blank = [dataset for dataset in datasets if not text(dataset, keyword)]
        if not blank:
            continue
        known = [str(each[keyword].value) for each in datasets if text(each, keyword)]
        value = known[0] if known else uid_of(keyword, *made_of(datasets))
        for dataset in blank:
            setattr(dataset, keyword, value)
        repairs.append(f"{keyword} is blank; made of what the files are")
    return repairs


def _about_study(datasets: Sequence[Any]) -> list[str]:
    """What the series of one study have in common; of an anonymous one, its images."""
    first = datasets[0]
    keywords = ("PatientID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber")
    facts = [text(first, keyword) for keyword in keywords]
    return facts if any(facts[1:]) else _instances(datasets)


def _about_series(datasets: Sequence[Any]) -> list[str]:
    return _instances(datasets)


def _about_frame(datasets: Sequence[Any]) -> list[str]:
    return [text(datasets[0], "SeriesInstanceUID")]


def _instances(datasets: Sequence[Any]) -> list[str]:
    return sorted(str(dataset.SOPInstanceUID) for dataset in datasets)
