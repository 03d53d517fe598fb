"""One DICOM file: opened with care, and its image planes described one by one."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from trivox.errors import FormatError
from trivox.volumes.header import reading

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NOT_IMAGES = (
    "1.2.840.10008.1.3.10",  # DICOMDIR
    _STORAGE + "11.",  # presentation states
    _STORAGE + "9.",  # waveforms
    _STORAGE + "66",  # raw data, SEG, surfaces
    _STORAGE + "67",  # mappings of values
    _STORAGE + "68",  # surface scans
    _STORAGE + "88.",  # reports
    _STORAGE + "104.",  # documents
    _STORAGE + "481.",  # radiotherapy
    _STORAGE + "78.",  # measurements of eyes
    _STORAGE + "79.",
    _STORAGE + "80.",
    _STORAGE + "30",  # parametric maps
)
"""How the class UIDs of objects without images begin."""
_NO_IMAGE_MODALITIES = (
    "SEG",
    "RTSTRUCT",
    "RTPLAN",
    "RTDOSE",
    "RTRECORD",
    "SR",
    "PR",
    "KO",
    "REG",
    "DOC",
    "FID",
)
_MARKS = (
    ("", "AcquisitionNumber"),
    ("", "TemporalPositionIdentifier"),
    ("", "EchoNumbers"),
    ("", "EchoTime"),
    ("", "TriggerTime"),
    ("", "DiffusionBValue"),
    ("", "InversionTime"),
    ("", "FlipAngle"),
    ("", "ImageType"),
    ("", "ConvolutionKernel"),
    ("", "KVP"),
    ("FrameContentSequence", "TemporalPositionIndex"),
    ("FrameContentSequence", "StackID"),
    ("FrameContentSequence", "FrameAcquisitionNumber"),
    ("MREchoSequence", "EffectiveEchoTime"),
    ("MRDiffusionSequence", "DiffusionBValue"),
)
"""(functional group, attribute): what may tell apart several images at one position."""
_RESCALING = "PixelValueTransformationSequence"
_MEASURES = "PixelMeasuresSequence"


@dataclass(frozen=True, eq=False)
class Frame:
    """One image plane of a file; positions and directions are DICOM's (LPS mm).

    size: (rows, columns); orientation: direction of increasing column, then of
    increasing row; spacing: mm between (rows, columns); depth: what the header says
    about the slice distance, for want of better in a lone image; stored: smallest and
    largest value that can be stored; marks: attributes that may tell images apart.
    """

    path: Path
    index: int
    frames: int
    series: str
    modality: str
    description: str
    number: str
    size: tuple[int, int]
    position: NDArray[np.float64] | None
    orientation: NDArray[np.float64] | None
    spacing: tuple[float, float]
    depth: float
    slope: float
    intercept: float
    stored: tuple[int, int]
    marks: dict[str, str]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom, which warns about every malformed value; what matters becomes an
    error here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def is_dicom(path: Path) -> bool:
    """Whether the file starts as DICOM files do (128 bytes, then DICM)."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def frames_of(path: Path) -> list[Frame]:
    """Describe the image planes of a file; none for objects that are no images, and for
    localizers.
    """
    with reading(path):
        dataset = load(path, pixels=False)
        if dataset is None or _is_localizer(dataset) or not _has_size(dataset):
            return []
        _require_grey(dataset)
        sources = _sources_of_frames(dataset)
        count = len(sources)
        return [_frame(path, i, count, source) for i, source in enumerate(sources)]


def _sources_of_frames(dataset: Any) -> list[list[Any]]:
    """For each frame where its attributes are looked up: its own functional group, the
    shared ones, the top level.
    """
    count = int(dataset.get("NumberOfFrames") or 1)
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if count > 1 and len(groups) != count:
        raise FormatError(
            f"{count} frames with {len(groups)} positions; "
            "only enhanced multi-frame images have them"
        )
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    if not groups:
        return [[*shared, dataset]]
    return [[group, *shared, dataset] for group in groups]


def load(path: Path, *, pixels: bool) -> Any:
    """The pydicom dataset, with or without its pixels; None for what is no image by its
    class. Raises `FormatError` for what is no DICOM, or deflated.
    """
    if not is_dicom(path):
        if not path.is_file():
            raise FileNotFoundError(path)
        raise FormatError(
            f"{path}: not a DICOM file (DICM is missing at byte 128); check the file"
        )
    meta = read_file_meta_info(str(path))
    kind = str(meta.get("MediaStorageSOPClassUID", ""))
    if kind.startswith(_NOT_IMAGES):
        return None
    if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        raise FormatError(
            f"{path}: deflated DICOM is refused, since it inflates without limit; "
            "store it uncompressed"
        )
    dataset = dcmread(path, stop_before_pixels=not pixels)
    kind = str(dataset.get("SOPClassUID") or kind)
    if kind.startswith(_NOT_IMAGES) or dataset.get("Modality") in _NO_IMAGE_MODALITIES:
        return None
    return dataset


def _has_size(dataset: Any) -> bool:
    """Whether there are pixels; pydicom stops silently where a file ends, so a cut
    image shows only by lacking Rows.
    """
    if dataset.get("Rows") and dataset.get("Columns"):
        return True
    kind = str(
        dataset.file_meta.get("MediaStorageSOPClassUID")
        or dataset.get("SOPClassUID")
        or _STORAGE
    )
    if kind.startswith(_STORAGE):
        raise FormatError(
            "ends before the size of the image; the file is damaged, copy it again "
            "or remove it"
        )
    return False  # a private or unknown object


def _is_localizer(dataset: Any) -> bool:
    value = dataset.get("ImageType") or ""
    kinds = [value] if isinstance(value, str) else value
    return any(str(kind).upper() in ("LOCALIZER", "SCOUT") for kind in kinds)


def _require_grey(dataset: Any) -> None:
    photometric = _text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    samples = int(dataset.get("SamplesPerPixel") or 1)
    if samples != 1 or not photometric.startswith("MONOCHROME"):
        raise FormatError(
            f"a colour image ({photometric}) is not supported; "
            "remove it from the folder"
        )
    if dataset.get("BitsAllocated") not in (8, 16, 32):
        bits = _text(dataset, "BitsAllocated")
        raise FormatError(f"pixels of {bits} bits are not supported; convert the image")


def _find(sources: list[Any], group: str, keyword: str) -> Any:
    """The attribute in the functional group of the frame, else of all frames, else at
    the top level; None if blank.
    """
    for source in sources:
        items = source.get(group) if group else None
        for holder in (items[0] if items else source, source):
            value = holder.get(keyword)
            if value is not None and value != "":
                return value
    return None


def _numbers(
    sources: list[Any], group: str, keyword: str, count: int
) -> NDArray[np.float64] | None:
    value = _find(sources, group, keyword)
    if value is None or (not np.isscalar(value) and len(value) == 0):
        return None
    numbers = np.asarray(value, dtype=np.float64).ravel()
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise FormatError(
            f"{keyword} holds {numbers.size} numbers instead of {count} finite ones; "
            "repair the file"
        )
    return numbers


def _number(sources: list[Any], group: str, keyword: str, default: float) -> float:
    numbers = _numbers(sources, group, keyword, 1)
    return default if numbers is None else float(numbers[0])


def _text(dataset: Any, keyword: str) -> str:
    """A value for people and for grouping: one line of at most 64 characters, as the
    standard allows.
    """
    value = dataset.get(keyword)
    return "" if value is None else " ".join(str(value).split())[:64]


def _frame(path: Path, index: int, count: int, sources: list[Any]) -> Frame:
    dataset = sources[-1]
    slope = _number(sources, _RESCALING, "RescaleSlope", 1.0)
    if slope == 0:
        raise FormatError(
            "RescaleSlope is 0, which would erase the image; repair the file"
        )
    position = _numbers(sources, "PlanePositionSequence", "ImagePositionPatient", 3)
    return Frame(
        path=path,
        index=index,
        frames=count,
        series=_text(dataset, "SeriesInstanceUID"),
        modality=_text(dataset, "Modality") or "?",
        description=_text(dataset, "SeriesDescription"),
        number=_text(dataset, "SeriesNumber"),
        size=(int(dataset.Rows), int(dataset.Columns)),
        position=position,
        orientation=_orientation(sources),
        spacing=_pixel_spacing(sources, placed=position is not None),
        depth=_depth(sources),
        slope=slope,
        intercept=_number(sources, _RESCALING, "RescaleIntercept", 0.0),
        stored=_stored_range(dataset),
        marks=_marks(sources),
    )


def _marks(sources: list[Any]) -> dict[str, str]:
    marks: dict[str, str] = {}
    for group, name in _MARKS:
        value = _find(sources, group, name)
        if value is not None:
            marks[name] = str(value)[:64]
    return marks


def _orientation(sources: list[Any]) -> NDArray[np.float64] | None:
    orientation = _numbers(
        sources, "PlaneOrientationSequence", "ImageOrientationPatient", 6
    )
    if orientation is None:
        return None
    row = orientation[:3]
    column = orientation[3:]
    lengths = (np.linalg.norm(row), np.linalg.norm(column))
    unit = all(abs(length - 1) <= 1e-2 for length in lengths)
    if not unit or abs(row @ column) > 1e-2:
        raise FormatError(
            f"ImageOrientationPatient {orientation.tolist()} is no pair of unit "
            "vectors; repair the file"
        )
    return np.concatenate([row / lengths[0], column / lengths[1]])


def _pixel_spacing(sources: list[Any], *, placed: bool) -> tuple[float, float]:
    spacing = _numbers(sources, _MEASURES, "PixelSpacing", 2)
    # a projection radiograph: spacing on the detector, else unknown
    if spacing is None and not placed:
        spacing = _numbers(sources, "", "ImagerPixelSpacing", 2)
        spacing = np.ones(2) if spacing is None else spacing
    if spacing is None or (spacing <= 0).any():
        raise FormatError(
            "PixelSpacing is missing or not positive; "
            "export the series again from its source"
        )
    return float(spacing[0]), float(spacing[1])


def _depth(sources: list[Any]) -> float:
    between = abs(_number(sources, _MEASURES, "SpacingBetweenSlices", 0.0))
    return between or _number(sources, _MEASURES, "SliceThickness", 0.0) or 1.0


def _stored_range(dataset: Any) -> tuple[int, int]:
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if not 1 <= bits <= dataset.BitsAllocated:
        raise FormatError(
            f"BitsStored is {bits} of {dataset.BitsAllocated} allocated; repair the file"
        )
    if int(dataset.get("PixelRepresentation") or 0) == 1:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1
