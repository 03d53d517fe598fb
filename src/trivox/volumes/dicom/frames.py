"""The image planes of a DICOM file, described one by one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError
from trivox.volumes.dicom.attributes import find, number, numbers, text
from trivox.volumes.dicom.files import STORAGE, class_of, load, no_image
from trivox.volumes.dicom.multiframe import (
    MEASURES,
    VECTORS,
    Place,
    places_of_frames,
    sources_of_frames,
)
from trivox.volumes.dicom.suv import Injection, injection_of
from trivox.volumes.header import reading

LOCALIZER = "localizer"
COLOUR = "colour image"
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
    ("", "AcquisitionTime"),
)
"""(functional group, attribute): what may tell apart several images at one position."""
_PRIVATE_MARKS = (
    ("DiffusionBValue", (0x0019, 0x100C)),  # Siemens
    ("DiffusionBValue", (0x2001, 0x1003)),  # Philips
    ("DiffusionBValue", (0x0043, 0x1039)),  # GE
)
_RESCALING = "PixelValueTransformationSequence"
_SPACINGS = (
    ("ImagerPixelSpacing", "mm on the detector, larger than in the patient"),
    ("NominalScannedPixelSpacing", "mm on the scanned film"),
)
"""What stands in where PixelSpacing is missing, and what it means."""
_CENTIMETRES = 3
"""The unit of ultrasound regions that is a length."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One image plane of a file; positions and directions are DICOM's (LPS mm).

    size: (rows, columns); orientation: direction of increasing column, then of
    increasing row; spacing: mm between (rows, columns); depth: what the header says
    about the slice distance, for want of better in a lone image; stored: smallest and
    largest value that can be stored; marks: attributes that may tell images apart;
    injection: of a PET image, what SUV is computed from; remarks: what has to be said
    of how it was read.
    """

    path: Path
    index: int
    frames: int
    series: str
    patient: str
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
    injection: Injection | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Aside:
    """A file whose content is no part of a volume.

    what: it is, in a word or two; problem: why the image cannot be used, one line that
    names the file; blank for objects that are no images.
    """

    path: Path
    series: str
    what: str
    problem: str = ""


@dataclass(frozen=True)
class Contents:
    """What DICOM files hold."""

    frames: list[Frame] = field(default_factory=list)
    asides: list[Aside] = field(default_factory=list)

    def add(self, content: "list[Frame] | Aside") -> None:
        """Take in what a file holds."""
        if isinstance(content, Aside):
            self.asides.append(content)
        else:
            self.frames.extend(content)


def frames_of(path: Path) -> list[Frame] | Aside:
    """Describe the image planes of a file.

    Raises `FormatError` for a file that cannot be parsed; an image that can be, and yet
    cannot be part of a volume, is an `Aside` with its problem.
    """
    with reading(path):
        dataset = load(path, pixels=False)
        series = text(dataset, "SeriesInstanceUID")
        what = no_image(dataset)
    try:
        with reading(path):
            if not what and not _has_size(dataset):
                what = "object without pixels"
            if not what and _is_localizer(dataset):
                what = LOCALIZER
            return Aside(path, series, what) if what else _described(path, dataset)
    except (FormatError, GeometryError) as error:
        return Aside(path, series, _name_of(dataset), str(error))


def _described(path: Path, dataset: Any) -> list[Frame]:
    _require_grey(dataset)
    sources = sources_of_frames(dataset)
    places = places_of_frames(sources)
    count = len(sources)
    return [
        _frame(path, index, count, source, place)
        for index, (source, place) in enumerate(zip(sources, places, strict=True))
    ]


def _name_of(dataset: Any) -> str:
    """What an image is that cannot be used."""
    if _is_colour(dataset):
        return COLOUR
    return "multi-frame image" if "NumberOfFrames" in dataset else "unusable image"


def _has_size(dataset: Any) -> bool:
    """Whether there are pixels; pydicom stops silently where a file ends, so a cut
    image shows only by lacking Rows.
    """
    if dataset.get("Rows") and dataset.get("Columns"):
        return True
    if (class_of(dataset) or STORAGE).startswith(STORAGE):
        raise FormatError(
            "ends before the size of the image; the file is damaged, copy it again "
            "or remove it"
        )
    return False  # a private or unknown object


def _is_localizer(dataset: Any) -> bool:
    value = dataset.get("ImageType") or ""
    kinds = [value] if isinstance(value, str) else value
    return any(str(kind).upper() in ("LOCALIZER", "SCOUT") for kind in kinds)


def _is_colour(dataset: Any) -> bool:
    photometric = text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    samples = int(dataset.get("SamplesPerPixel") or 1)
    return samples != 1 or not photometric.startswith("MONOCHROME")


def _require_grey(dataset: Any) -> None:
    if _is_colour(dataset):
        photometric = text(dataset, "PhotometricInterpretation")
        raise FormatError(
            f"a colour image ({photometric}) is not supported; "
            "remove it from the folder"
        )
    if dataset.get("BitsAllocated") not in (8, 16, 32):
        bits = text(dataset, "BitsAllocated")
        raise FormatError(f"pixels of {bits} bits are not supported; convert the image")


def _frame(
    path: Path, index: int, count: int, sources: list[Any], place: Place
) -> Frame:
    dataset = sources[-1]
    slope = number(sources, _RESCALING, "RescaleSlope", 1.0)
    intercept = number(sources, _RESCALING, "RescaleIntercept", 0.0)
    stored = _stored_range(dataset)
    _require_values(slope, intercept, stored)
    spacing, remarks = _pixel_spacing(sources)
    return Frame(
        path=path,
        index=index,
        frames=count,
        series=text(dataset, "SeriesInstanceUID"),
        patient=text(dataset, "PatientID"),
        modality=text(dataset, "Modality") or "?",
        description=text(dataset, "SeriesDescription"),
        number=text(dataset, "SeriesNumber"),
        size=(int(dataset.Rows), int(dataset.Columns)),
        position=place.position,
        orientation=place.orientation,
        spacing=spacing,
        depth=_depth(sources),
        slope=slope,
        intercept=intercept,
        stored=stored,
        marks=_marks(sources, index),
        injection=injection_of(dataset),
        remarks=(*place.remarks, *remarks),
    )


def _marks(sources: list[Any], index: int) -> dict[str, str]:
    dataset = sources[-1]
    marks: dict[str, str] = {}
    for name in VECTORS:
        values = np.atleast_1d(dataset.get(name, []))
        if values.size > index:
            marks[name] = str(values[index])
    for group, name in _MARKS:
        value = find(sources, group, name)
        if value is not None:
            marks[name] = str(value)[:64]
    for name, tag in _PRIVATE_MARKS:
        if tag in dataset and name not in marks:
            marks[name] = str(dataset[tag].value)[:64]
    return marks


def _pixel_spacing(sources: list[Any]) -> tuple[tuple[float, float], tuple[str, ...]]:
    """Distance of rows and of columns, mm, and what has to be said of it."""
    spacing = numbers(sources, MEASURES, "PixelSpacing", 2)
    remarks: tuple[str, ...] = ()
    for name, meaning in _SPACINGS:
        if spacing is None:
            spacing = numbers(sources, "", name, 2)
            remarks = (f"spacing: PixelSpacing is missing, {name} is taken, {meaning}",)
    if spacing is None:
        spacing = _ultrasound_spacing(sources[-1])
        remarks = (
            "spacing: PixelSpacing is missing, that of the ultrasound region is taken",
        )
    if spacing is None or (spacing <= 0).any():
        raise FormatError(
            "PixelSpacing is missing or not positive; export the series again from its "
            "source"
        )
    return (float(spacing[0]), float(spacing[1])), remarks


def _ultrasound_spacing(dataset: Any) -> NDArray[np.float64] | None:
    """Distance of rows and of columns of the only region that has one, mm."""
    regions = [
        region
        for region in dataset.get("SequenceOfUltrasoundRegions") or []
        if region.get("PhysicalUnitsXDirection") == _CENTIMETRES
        and region.get("PhysicalUnitsYDirection") == _CENTIMETRES
    ]
    if len(regions) != 1:
        return None
    columns = number(regions, "", "PhysicalDeltaX", 0.0)
    rows = number(regions, "", "PhysicalDeltaY", 0.0)
    return 10 * np.abs([rows, columns])


def _depth(sources: list[Any]) -> float:
    """What the header says about the slice distance, 0 where it says nothing."""
    between = abs(number(sources, MEASURES, "SpacingBetweenSlices", 0.0))
    return between or abs(number(sources, MEASURES, "SliceThickness", 0.0))


def _require_values(slope: float, intercept: float, stored: tuple[int, int]) -> None:
    """Raise unless rescaled values are told apart and are numbers, as float32."""
    span = abs(slope) * (stored[1] - stored[0])
    if span + abs(intercept) == abs(intercept):
        raise FormatError(
            f"RescaleSlope is {slope:g}, which would erase the image; repair the file"
        )
    largest = max(abs(slope * value + intercept) for value in stored)
    if not largest <= np.finfo(np.float32).max:
        raise FormatError(
            f"RescaleSlope {slope:g} and RescaleIntercept {intercept:g} give values "
            "beyond all measure; repair the file"
        )


def _stored_range(dataset: Any) -> tuple[int, int]:
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if not 1 <= bits <= dataset.BitsAllocated:
        raise FormatError(
            f"BitsStored is {bits} of {dataset.BitsAllocated} allocated; repair the file"
        )
    if int(dataset.get("PixelRepresentation") or 0) == 1:
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return 0, 2**bits - 1
