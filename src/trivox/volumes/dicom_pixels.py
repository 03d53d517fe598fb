"""One DICOM file: opened with care, described frame by frame, decoded."""

import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.encaps import generate_frames
from pydicom.filereader import read_file_meta_info
from pydicom.pixels import iter_pixels
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
)

from trivox.errors import FormatError
from trivox.volumes.header import reading
from trivox.volumes.volume import Array

_STORAGE = "1.2.840.10008.5.1.4.1.1."
# presentation states, waveforms, raw data / SEG / surfaces, mappings, reports,
# documents, radiotherapy
_NOT_IMAGES = (
    *(
        _STORAGE + end
        for end in (
            "11.",
            "9.",
            "66",
            "67",
            "68",
            "88.",
            "104.",
            "481.",
            "78.",
            "79.",
            "80.",
            "30",
        )
    ),
    "1.2.840.10008.1.3.10",  # DICOMDIR
)
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
# (functional group, attribute): what may tell apart several images at one position
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
        dataset = _load(path, pixels=False)
        if dataset is None or _is_localizer(dataset) or not _has_size(dataset):
            return []
        _require_grey(dataset)
        count = int(dataset.get("NumberOfFrames") or 1)
        groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
        if count > 1 and len(groups) != count:
            raise FormatError(
                f"{count} frames with {len(groups)} positions; only enhanced multi-frame images have them"
            )
        shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
        sources = [[group, *shared, dataset] for group in groups] or [
            [*shared, dataset]
        ]
        return [
            _frame(path, index, len(sources), source)
            for index, source in enumerate(sources)
        ]


def decode(path: Path, indices: Sequence[int]) -> Iterator[Array]:
    """Yield the stored values (rows, columns) of the frames `indices`.

    MONOCHROME1 is not inverted: in CT and MR the values mean the same, only the display
    differs. Padding stays.
    """
    dataset = _load(path, pixels=True)
    if dataset is None or "PixelData" not in dataset:
        raise FormatError(f"{path}: holds no pixel data; copy the file again")
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, _little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        )
    _require_codestream_sizes(dataset)
    for array in iter_pixels(dataset, raw=True, indices=list(indices)):
        if array.shape != (dataset.Rows, dataset.Columns):
            raise FormatError(
                f"{path}: decodes to {array.shape} pixels, declared are {dataset.Rows, dataset.Columns}"
            )
        yield _without_unused_bits(array, dataset)


def value_type(frames: list[Frame]) -> np.dtype[Any]:
    """int16 or int32 where slopes are 1 and intercepts whole (by what can be stored,
    not what is), else float32.
    """
    if all(frame.slope == 1 and frame.intercept.is_integer() for frame in frames):
        low = min(frame.stored[0] + frame.intercept for frame in frames)
        high = max(frame.stored[1] + frame.intercept for frame in frames)
        for kind in (np.int16, np.int32):
            if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
                return np.dtype(kind)
    return np.dtype(np.float32)


def rescaled(stored: Array, frame: Frame, kind: np.dtype[Any]) -> Array:
    """Stored values to real ones (HU in CT), as `kind`; slope and intercept are those
    of the frame.
    """
    plane = stored.astype(kind)
    if kind.kind == "f":
        plane *= kind.type(frame.slope)
    plane += kind.type(frame.intercept)
    return plane


def _load(path: Path, *, pixels: bool) -> Any:
    """The dataset, or None for what is no image by its class."""
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
            f"{path}: deflated DICOM is refused, since it inflates without limit; store it uncompressed"
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
            "ends before the size of the image; the file is damaged, copy it again or remove it"
        )
    return False  # a private or unknown object


def _is_localizer(dataset: Any) -> bool:
    value = dataset.get("ImageType") or ""
    kinds = [value] if isinstance(value, str) else value
    return any(str(kind).upper() in ("LOCALIZER", "SCOUT") for kind in kinds)


def _require_grey(dataset: Any) -> None:
    photometric = _text(dataset, "PhotometricInterpretation") or "MONOCHROME2"
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or not photometric.startswith(
        "MONOCHROME"
    ):
        raise FormatError(
            f"a colour image ({photometric}) is not supported; remove it from the folder"
        )
    if dataset.get("BitsAllocated") not in (8, 16, 32):
        raise FormatError(
            f"pixels of {_text(dataset, 'BitsAllocated')} bits are not supported; convert the image"
        )


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
            f"{keyword} holds {numbers.size} numbers instead of {count} finite ones; repair the file"
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
    slope = _number(sources, "PixelValueTransformationSequence", "RescaleSlope", 1.0)
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
        intercept=_number(
            sources, "PixelValueTransformationSequence", "RescaleIntercept", 0.0
        ),
        stored=_stored_range(dataset),
        marks={
            name: str(value)[:64]
            for group, name in _MARKS
            if (value := _find(sources, group, name)) is not None
        },
    )


def _orientation(sources: list[Any]) -> NDArray[np.float64] | None:
    orientation = _numbers(
        sources, "PlaneOrientationSequence", "ImageOrientationPatient", 6
    )
    if orientation is None:
        return None
    row, column = orientation[:3], orientation[3:]
    if (
        abs(np.linalg.norm(row) - 1) > 1e-2
        or abs(np.linalg.norm(column) - 1) > 1e-2
        or abs(row @ column) > 1e-2
    ):
        raise FormatError(
            f"ImageOrientationPatient {orientation.tolist()} is no pair of unit vectors; repair the file"
        )
    return np.concatenate([row / np.linalg.norm(row), column / np.linalg.norm(column)])


def _pixel_spacing(sources: list[Any], *, placed: bool) -> tuple[float, float]:
    spacing = _numbers(sources, "PixelMeasuresSequence", "PixelSpacing", 2)
    if (
        spacing is None and not placed
    ):  # a projection radiograph: spacing on the detector, else unknown
        spacing = _numbers(sources, "", "ImagerPixelSpacing", 2)
        spacing = np.ones(2) if spacing is None else spacing
    if spacing is None or (spacing <= 0).any():
        raise FormatError(
            "PixelSpacing is missing or not positive; export the series again from its source"
        )
    return float(spacing[0]), float(spacing[1])


def _depth(sources: list[Any]) -> float:
    between = abs(
        _number(sources, "PixelMeasuresSequence", "SpacingBetweenSlices", 0.0)
    )
    return (
        between
        or _number(sources, "PixelMeasuresSequence", "SliceThickness", 0.0)
        or 1.0
    )


def _stored_range(dataset: Any) -> tuple[int, int]:
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    if not 1 <= bits <= dataset.BitsAllocated:
        raise FormatError(
            f"BitsStored is {bits} of {dataset.BitsAllocated} allocated; repair the file"
        )
    signed = int(dataset.get("PixelRepresentation") or 0) == 1
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def _without_unused_bits(array: Array, dataset: Any) -> Array:
    """Clear bits above BitsStored (old files keep overlays there), or continue the sign
    through them.
    """
    unused = array.dtype.itemsize * 8 - int(
        dataset.get("BitsStored") or dataset.BitsAllocated
    )
    return (
        (array << unused) >> unused if unused else array
    )  # arithmetic shift for signed types


def _require_codestream_sizes(dataset: Any) -> None:
    """Refuse compressed frames whose own size differs from the header's, before a
    decoder allocates it.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in (*JPEG2000TransferSyntaxes, *JPEGLSTransferSyntaxes):
        return
    declared = (int(dataset.Rows), int(dataset.Columns))
    for frame in generate_frames(
        dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)
    ):
        if syntax in JPEG2000TransferSyntaxes:
            start = frame.find(
                b"\xff\x4f\xff\x51"
            )  # start of codestream, then image size
            width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
            found = (height - top, width - left)
        else:
            start = frame.find(b"\xff\xf7")  # JPEG-LS frame header
            found = struct.unpack_from(">2H", frame, start + 5)
        if start < 0 or found != declared:
            raise FormatError(
                f"a compressed frame holds {found} pixels, declared are {declared}; the file is damaged"
            )
