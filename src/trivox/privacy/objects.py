"""A DICOM object without the person."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from trivox.config.choices import DateRule
from trivox.errors import DataError, FormatError
from trivox.privacy.elements import Cleaner, TooDeepError, code_of
from trivox.privacy.key import Key
from trivox.privacy.pixels import plain_pixels
from trivox.privacy.profile import CLASSES, NEEDED, TEXT_BURNT_IN
from trivox.results.source_series import made_instance_uid
from trivox.version import __version__
from trivox.volumes.dicom.attributes import text
from trivox.volumes.dicom.files import class_of, load, quiet
from trivox.volumes.dicom.native import NativeDecoder

METHOD = f"trivox {__version__}: PS3.15 Basic Profile, allow-list"
PROFILE = ("113100", "Basic Application Confidentiality Profile")
OPTIONS = {
    "remove": (),
    "shift": (
        ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ),
    "keep": (("113106", "Retain Longitudinal Temporal Information Full Dates Option"),),
}
"""Codes of the method (PS3.16, CID 7050)."""
SIDED = ("CT", "MR", "PET", "CR")
"""Kinds that say the side of paired parts (PS3.3 C.7.3.1)."""
TEMPORAL = {"remove": "REMOVED", "shift": "MODIFIED", "keep": "UNMODIFIED"}
PATIENT = "patient"
ALWAYS = (
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "SeriesNumber",
)
"""What every object has (PS3.3 C.7.1.1, C.7.2.1), empty if need be."""


class AsideError(DataError):
    """An object that is not cleaned, and why; the reason says nothing of the person."""


@dataclass(frozen=True)
class Cleaned:
    """An object without the person.

    content: the file; patient, study, series, instance: pseudonyms; kind: of object.
    """

    content: bytes
    patient: str
    study: str
    series: str
    instance: str
    kind: str
    number: int


def cleaned_object(
    path: Path, key: Key, dates: DateRule, native: NativeDecoder
) -> Cleaned:
    """The object of a file; raises `AsideError` for what is not known well enough or may
    show a name in its pixels, `FormatError` for what is damaged.
    """
    with quiet():
        try:
            dataset = load(path, pixels=True)
            return _cleaned(path, dataset, key, dates, native)
        except AsideError:
            raise
        except (MemoryError, OSError):
            raise
        except Exception as error:
            # parsers of damaged files raise nearly everything, with values of the file
            raise FormatError("is damaged") from error


def _cleaned(
    path: Path, dataset: Any, key: Key, dates: DateRule, native: NativeDecoder
) -> Cleaned:
    kind = _kind_of(dataset)
    _require_no_text_burnt_in(dataset, kind)
    patient = _patient(path, dataset)
    pseudonym = key.name(PATIENT, patient)
    cleaner = Cleaner(key, dates, key.days(patient))
    try:
        result = cleaner.cleaned(dataset)
    except TooDeepError as error:
        raise AsideError("sequences lie too deep in each other") from error
    result.PatientName = f"{pseudonym}^"
    result.PatientID = pseudonym
    for keyword in (*ALWAYS, *NEEDED.get(kind, ())):
        if keyword not in result:
            empty = Sequence() if keyword.endswith("Sequence") else None
            setattr(result, keyword, empty)
    if kind in SIDED and "BodyPartExamined" not in result:
        result.Laterality = None  # may be a part of which there are two
    _name(result, dataset, path, key)
    _say_method(result, dates)
    plain_pixels(path, dataset, result, native)
    return Cleaned(
        _file(result),
        pseudonym,
        key.name("study", result.StudyInstanceUID),
        key.name("series", result.SeriesInstanceUID),
        key.name("instance", result.SOPInstanceUID),
        kind,
        int(result.get("InstanceNumber") or 0),
    )


def _patient(path: Path, dataset: Any) -> str:
    """What tells patients apart; where an object names none, its study or folder."""
    keywords = ("PatientID", "PatientName", "StudyInstanceUID")
    named = [text(dataset, keyword) for keyword in keywords]
    return next(filter(None, named), path.parent.name)


def _kind_of(dataset: Any) -> str:
    """What an object is; raises `AsideError` for what is not known well enough."""
    kind = CLASSES.get(class_of(dataset) or text(dataset, "SOPClassUID"))
    if kind is None:
        raise AsideError("is of a class that is not cleaned")
    return kind


def _require_no_text_burnt_in(dataset: Any, kind: str) -> None:
    burnt = text(dataset, "BurnedInAnnotation").upper()
    if burnt == "YES":
        raise AsideError("says that text is burnt into its pixels")
    if kind in TEXT_BURNT_IN and burnt != "NO":
        raise AsideError("may have text burnt into its pixels")
    if int(dataset.get("SamplesPerPixel") or 1) != 1:
        raise AsideError("has colours, as pictures of screens and reports do")
    shots = ("SCREEN", "REPORT", "DOSE_INFO", "SECONDARYCAPTURE")
    kinds = "".join(map(str, dataset.get("ImageType") or ())).upper()
    if any(shot in kinds for shot in shots):
        raise AsideError("is a picture of a screen or a report")
    if "ModalityLUTSequence" in dataset:
        raise AsideError("holds tables that are not cleaned")


def _name(result: Dataset, dataset: Any, path: Path, key: Key) -> None:
    """UIDs for what the source left without any; one file, one UID."""
    kind = class_of(dataset)
    result.SOPClassUID = kind
    if not result.get("SOPInstanceUID"):
        result.SOPInstanceUID = key.uid(made_instance_uid(dataset, path))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        if not result.get(keyword):
            setattr(result, keyword, key.uid(f"{keyword} {path.parent.name}"))


def _say_method(result: Dataset, dates: DateRule) -> None:
    """That, and how, the person was taken out (PS3.15 E.1)."""
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = METHOD
    done = (PROFILE, *OPTIONS[dates])
    codes = [code_of(value, "DCM", says) for value, says in done]
    result.DeidentificationMethodCodeSequence = Sequence(codes)
    result.LongitudinalTemporalInformationModified = TEMPORAL[dates]


def _file(result: Dataset) -> bytes:
    """The file of an object: explicit little endian, an empty preamble."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = result.SOPClassUID
    meta.MediaStorageSOPInstanceUID = result.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.file_meta = meta
    stream = BytesIO()
    result.save_as(stream, enforce_file_format=True)
    return stream.getvalue()
