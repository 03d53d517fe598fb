"""Where DICOM images lie: the grid that the images of a series span.

The grid comes from ImagePositionPatient and ImageOrientationPatient alone, never from
SliceThickness, which is how thick a slice is and not how far the next one is away. A
tilted gantry gives a sheared affine, which is the truth.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError, few
from trivox.volumes.dicom.frames import Frame
from trivox.volumes.dicom.pixels import value_type
from trivox.volumes.dicom.places import (
    SAME_PLACE,
    Vector,
    alike,
    in_places,
    is_placed,
    normal_of,
)
from trivox.volumes.dicom.series import Chosen
from trivox.volumes.dicom.steps import largest_shift, unevenness, usual_step
from trivox.volumes.dicom.suv import suv_factor
from trivox.volumes.header import Header
from trivox.volumes.volume import affine_from_spacing

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHIFTED = 0.1
"""Share of the slice distance by which a slice may be off its place unsaid."""
_ASSUMED_DEPTH = 1.0
"""mm, of a lone image that says nothing of its depth; a remark goes with it."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames along the normal, images at one position together, and the grid that they
    span.

    places: the frames at each z; affine: voxel index `(x, y, z, 1)` to RAS mm; remarks:
    what has to be said of how the series was read.
    """

    places: list[list[Frame]]
    affine: NDArray[np.float64]
    remarks: tuple[str, ...] = ()

    @property
    def frames(self) -> list[Frame]:
        """All frames, place by place."""
        frames: list[Frame] = []
        for place in self.places:
            frames += place
        return frames

    @property
    def header(self) -> Header:
        """What the volume will be, known before any pixel is decoded."""
        rows, columns = self.places[0][0].size
        shape = (len(self.places), rows, columns)
        kind = value_type(self.frames)
        return Header(shape, self.affine, 1, kind, self.remarks)


def stack_of(path: Path, chosen: Chosen, *, tolerance: float | None = None) -> Stack:
    """Order the frames of a series in space, PET in SUV.

    tolerance: mm by which slice distances may differ. Raises `GeometryError` for frames
    that do not share one plane, do not lie behind each other or lie at uneven
    distances, and `FormatError` for several without a position and for those of several
    patients; both name `path`.
    """
    _require_one_patient(path, chosen.frames)
    usual, *others = alike(chosen.frames)
    if others:
        raise GeometryError(_mixed(path, usual, others))
    usual, unit = _in_suv(usual)
    remarks = [*chosen.remarks, *unit]
    remarks += dict.fromkeys(_said(usual))
    if not is_placed(usual):
        return _lone(path, usual, remarks)
    heights, places = in_places(usual)
    points = np.array([place[0].position for place in places])
    _require_line(path, points, heights, places)
    problem = unevenness(heights, tolerance)
    if problem:
        raise GeometryError(f"{path}: {problem}")
    remarks += _of_distances(heights)
    remarks += _of_copies(places)
    if len(places) > 1:
        step = (points[-1] - points[0]) / (len(places) - 1)
    else:
        depth, unknown = _depth(usual[0])
        step = normal_of(usual[0]) * depth
        remarks += unknown
    return Stack(places, _affine(usual[0], points[0], step), tuple(remarks))


def _require_one_patient(path: Path, frames: Iterable[Frame]) -> None:
    """Raise if images of a series name different patients; blank names nobody."""
    named: dict[str, str] = {}
    for frame in frames:
        named.setdefault(frame.patient, frame.path.name)
    named.pop("", None)
    if len(named) > 1:
        files = few(named.values())
        raise FormatError(
            f"{path}: one series holds images of {len(named)} patients by PatientID "
            f"({files}, for example); give each patient a folder of its own"
        )


def _said(frames: Iterable[Frame]) -> Iterable[str]:
    for frame in frames:
        yield from frame.remarks


def _in_suv(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """PET images that are rescaled to SUV, and what has to be said of it."""
    injections = [frame.injection for frame in frames if frame.injection is not None]
    if not injections:
        return frames, []
    factor, remark = suv_factor(injections)
    scaled = [
        replace(frame, slope=frame.slope * factor, intercept=frame.intercept * factor)
        for frame in frames
    ]
    return scaled, [remark]


def _lone(path: Path, frames: list[Frame], remarks: list[str]) -> Stack:
    """One image that says not where it lies."""
    if len(frames) > 1:
        raise FormatError(
            f"{path}: images without ImagePositionPatient or ImageOrientationPatient "
            "cannot be ordered"
        )
    depth, unknown = _depth(frames[0])
    affine = affine_from_spacing((depth, *frames[0].spacing))
    return Stack([frames], affine, (*remarks, *unknown))


def _depth(frame: Frame) -> tuple[float, list[str]]:
    """How deep a lone image is, mm, and what has to be said where it is not known."""
    if frame.depth > 0:
        return frame.depth, []
    assumed = f"depth: a lone image without SliceThickness is taken as {_ASSUMED_DEPTH:g} mm deep"
    return _ASSUMED_DEPTH, [assumed]


def _of_distances(heights: Vector) -> list[str]:
    """What has to be said of slices that do not lie where an even grid has them."""
    shift = largest_shift(heights)
    if shift <= SAME_PLACE + _SHIFTED * usual_step(heights):
        return []
    return [
        f"slice distances: uneven, read as even, up to {shift:.2f} mm from their place"
    ]


def _of_copies(places: list[list[Frame]]) -> list[str]:
    """What has to be said of several images at a position, which are then equal."""
    copies = sum(len(place) - 1 for place in places)
    return (
        [f"copies: {copies} images that are there twice are left out"] if copies else []
    )


def _mixed(path: Path, usual: list[Frame], others: list[list[Frame]]) -> str:
    strange: list[str] = []
    for group in others:
        strange += [frame.path.name for frame in group]
    rows, columns = usual[0].size
    return (
        f"{path}: {len(usual)} images of {rows}x{columns} are mixed with "
        f"{len(strange)} of another size, pixel spacing or orientation "
        f"({few(strange)}); move those to another folder"
    )


def _require_line(
    path: Path, points: Vector, heights: Vector, places: list[list[Frame]]
) -> None:
    """The corners of all images must lie on one straight line, else the series joins
    several fields of view.
    """
    tolerance = 0.1 * min(places[0][0].spacing) + SAME_PLACE
    run = np.zeros(1)
    if len(points) > 1:
        run = (heights - heights[0]) / (heights[-1] - heights[0])
    ideal = points[0] + run[:, None] * (points[-1] - points[0])
    off = [_farthest(place, at) for place, at in zip(places, ideal, strict=True)]
    worst = int(np.argmax(off))
    if off[worst] > tolerance:
        name = places[worst][0].path.name
        raise GeometryError(
            f"{path}: images are shifted sideways against each other by up to "
            f"{off[worst]:.3g} mm ({name}); the series joins several fields of view or "
            "volumes: move them to separate folders"
        )


def _farthest(place: list[Frame], at: Vector) -> float:
    """The largest distance along an axis from a point to the images of a place, mm."""
    positions = np.array([frame.position for frame in place])
    return float(np.abs(positions - at).max())


def _affine(first: Frame, origin: Vector, step: Vector) -> Vector:
    assert first.orientation is not None
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * first.spacing[1]
    lps[:3, 1] = first.orientation[3:] * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = origin
    return np.asarray(_LPS_TO_RAS @ lps)
