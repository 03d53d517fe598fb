"""Where the frames of a file lie: by their own positions, or by one position and the
distance from frame to frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError
from trivox.volumes.dicom.attributes import find, number, numbers

_MOST_FRAMES = 100_000
MEASURES = "PixelMeasuresSequence"
_AXIAL = np.array([1.0, 0, 0, 0, 1.0, 0])
_OVER_TIME_TAGS = (0x00181063, 0x00181065)
VECTORS = (
    "TimeSlotVector",
    "TimeSliceVector",
    "PhaseVector",
    "RRIntervalVector",
    "EnergyWindowVector",
    "DetectorVector",
    "RotationVector",
    "AngularViewVector",
)
"""What numbers the frames of nuclear medicine beside their slice."""
UNPLACED = (
    "place: ImagePositionPatient or ImageOrientationPatient is missing, the frames are "
    "taken as axial, from the origin on"
)
Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a frame lies (LPS mm), None where that is not known, and what has to be
    said of it.
    """

    position: Vector | None
    orientation: Vector | None
    remarks: tuple[str, ...] = ()


def sources_of_frames(dataset: Any) -> list[list[Any]]:
    """For each frame where its attributes are looked up: its own functional group, the
    shared ones, the detector of nuclear medicine, the top level.
    """
    count = int(dataset.get("NumberOfFrames") or 1)
    if not 1 <= count <= _MOST_FRAMES:
        raise FormatError(f"NumberOfFrames is {count}; the file is damaged")
    groups = dataset.get("PerFrameFunctionalGroupsSequence") or []
    if count > 1 and groups and len(groups) != count:
        raise FormatError(f"{count} frames with {len(groups)} positions")
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    detectors = list(dataset.get("DetectorInformationSequence") or [])[:1]
    common = [*shared, *detectors, dataset]
    if not groups:
        return [common] * count
    return [[group, *common] for group in groups]


def places_of_frames(sources: list[list[Any]]) -> list[Place]:
    """Where each frame lies; raises `FormatError` for several frames that are not
    slices of one volume.
    """
    positions = [position_of(source) for source in sources]
    orientations = [orientation_of(source) for source in sources]
    if len(sources) == 1:
        return [Place(positions[0], orientations[0])]
    apart = len({id(source[0]) for source in sources}) > 1
    if apart and all(position is not None for position in positions):
        pairs = zip(positions, orientations, strict=True)
        return [Place(position, orientation) for position, orientation in pairs]
    return _in_steps(sources, positions[0], orientations[0])


def position_of(sources: list[Any]) -> Vector | None:
    """Centre of the first pixel, LPS mm; None where it is not known."""
    position = numbers(sources, "PlanePositionSequence", "ImagePositionPatient", 3)
    if position is None:
        group = "PlanePositionVolumeSequence"
        position = numbers(sources, group, "ImagePositionVolume", 3)
    return position


def orientation_of(sources: list[Any]) -> Vector | None:
    """Directions of increasing column and row, unit vectors (LPS); None where they are
    not known, `FormatError` where they are none.
    """
    keyword = "ImageOrientationPatient"
    orientation = numbers(sources, "PlaneOrientationSequence", keyword, 6)
    if orientation is None:
        keyword = "ImageOrientationVolume"
        orientation = numbers(sources, "PlaneOrientationVolumeSequence", keyword, 6)
    if orientation is None:
        return None
    row = orientation[:3]
    column = orientation[3:]
    lengths = (np.linalg.norm(row), np.linalg.norm(column))
    unit = all(abs(length - 1) <= 1e-2 for length in lengths)
    if not unit or abs(row @ column) > 1e-2:
        raise FormatError(
            f"{keyword} {orientation.tolist()} is no pair of unit vectors; repair the "
            "file"
        )
    return np.concatenate([row / lengths[0], column / lengths[1]])


def _in_steps(
    sources: list[list[Any]], first: Vector | None, orientation: Vector | None
) -> list[Place]:
    """Frames behind each other from the first one on, along its normal."""
    remarks: tuple[str, ...] = ()
    if first is None or orientation is None:
        remarks = (UNPLACED,)
    first = np.zeros(3) if first is None else first
    orientation = _AXIAL if orientation is None else orientation
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        Place(first + offset * normal, orientation, remarks)
        for offset in _offsets(sources[0], len(sources))
    ]


def _offsets(sources: list[Any], count: int) -> Vector:
    """How far each frame lies from the first along the normal, mm.

    The sign of SpacingBetweenSlices is the direction, as nuclear medicine has it
    (DICOM PS3.3 C.8.4.15).
    """
    dataset = sources[-1]
    step = number(sources, MEASURES, "SpacingBetweenSlices", 0.0)
    given = find(sources, "", "GridFrameOffsetVector")
    if given is not None and np.size(given) == count:
        offsets: Vector = np.array([float(offset) for offset in given])
        return offsets - float(offsets[0])
    if step == 0 or (_over_time(dataset) and "SliceVector" not in dataset):
        raise FormatError(
            f"{count} frames without positions or SpacingBetweenSlices: a film or "
            "several views, which are no volume; remove it from the folder"
        )
    slices = find(sources, "", "SliceVector")
    if slices is not None and np.size(slices) == count:
        return np.multiply(step, np.asarray(slices, dtype=np.float64) - 1)
    return np.multiply(step, np.arange(count, dtype=np.float64))


def _over_time(dataset: Any) -> bool:
    """Whether the frames follow each other in time."""
    pointer = dataset.get("FrameIncrementPointer")
    if pointer is None:
        return False
    pointers = pointer if isinstance(pointer, Sequence) else [pointer]
    return any(tag in _OVER_TIME_TAGS for tag in pointers)
