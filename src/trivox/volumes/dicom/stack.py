"""Where DICOM images lie: put in order along their normal, and the grid they span.

The grid comes from ImagePositionPatient and ImageOrientationPatient alone, never from
SliceThickness, which is how thick a slice is and not how far the next one is away. A
tilted gantry gives a sheared affine, which is the truth.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trivox.errors import FormatError, GeometryError, few
from trivox.volumes.dicom.frames import Frame
from trivox.volumes.dicom.pixels import value_type
from trivox.volumes.dicom.series import alike
from trivox.volumes.header import Header
from trivox.volumes.volume import affine_from_spacing

_SAME_PLACE = 0.01
"""mm; positions in headers are rounded to about this."""
_UNEVEN = 0.01
"""Share of the usual distance by which a step between slices may differ from it."""
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stack:
    """Frames along the normal, images at one position together, and the grid that they
    span.

    places: the frames at each z; affine: voxel index `(x, y, z, 1)` to RAS mm; gaps:
    which positions are missing, in words; empty if none.
    """

    places: list[list[Frame]]
    affine: NDArray[np.float64]
    gaps: str = ""

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
        return Header(shape, self.affine, 1, value_type(self.frames))


def stack_of(path: Path, frames: list[Frame]) -> Stack:
    """Order the frames of a series in space.

    Raises `GeometryError` for frames that do not share one plane or do not lie behind
    each other, and `FormatError` for several without a position; both name `path`.
    """
    usual, *others = alike(frames)
    if others:
        raise GeometryError(_mixed(path, usual, others))
    first = usual[0]
    unplaced = first.orientation is None or any(f.position is None for f in usual)
    if unplaced and len(usual) == 1:
        return Stack([usual], affine_from_spacing((first.depth, *first.spacing)))
    if unplaced:
        raise FormatError(
            f"{path}: images without ImagePositionPatient or ImageOrientationPatient "
            "cannot be ordered"
        )
    assert first.orientation is not None
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    heights, places = _in_places(usual, normal)
    points = np.array([place[0].position for place in places])
    _require_line(path, points, heights, places)
    if len(places) > 1:
        step = (points[-1] - points[0]) / (len(places) - 1)
    else:
        step = normal * first.depth
    return Stack(places, _affine(first, points[0], step), _gaps(heights))


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


def _in_places(frames: list[Frame], normal: Vector) -> tuple[Vector, list[list[Frame]]]:
    """Height along the normal, ascending, and the images at each; those within
    `_SAME_PLACE` are one place.
    """
    positions = [frame.position for frame in frames if frame.position is not None]
    heights = np.array([position @ normal for position in positions])
    order = np.argsort(heights, kind="stable")
    starts: list[float] = []
    places: list[list[Frame]] = []
    previous = -np.inf
    for index in order:
        height = heights[index]
        if height - previous > _SAME_PLACE:
            starts.append(height)
            places.append([])
        places[-1].append(frames[index])
        previous = height
    return np.array(starts), places


def _require_line(
    path: Path, points: Vector, heights: Vector, places: list[list[Frame]]
) -> None:
    """The corners of all images must lie on one straight line, else the series joins
    several fields of view.
    """
    tolerance = 0.1 * min(places[0][0].spacing) + _SAME_PLACE
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


def _gaps(heights: Vector) -> str:
    """Missing positions in words, empty if slices are even within 1 % (or the rounding
    of positions).
    """
    if len(heights) < 3:
        return ""
    steps = np.diff(heights)
    usual = float(np.median(steps))
    tolerance = max(_UNEVEN * usual, _SAME_PLACE)
    wide = np.flatnonzero(np.abs(steps - usual) > tolerance)
    if not wide.size:
        return ""
    missing: list[str] = []
    for i in wide:
        count = max(round(float(steps[i]) / usual), 1)
        between = heights[i] + steps[i] * np.arange(1, count) / count
        missing += [f"{height:.2f}" for height in between]
    shown = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
    where = "slices lie at uneven distances"
    if missing:
        where = f"slices are missing at {shown} mm along the normal"
    return (
        f"{where} (distances {steps.min():.3f} to {steps.max():.3f} mm, "
        f"usual {usual:.3f} mm)"
    )


def _affine(first: Frame, origin: Vector, step: Vector) -> Vector:
    assert first.orientation is not None
    lps = np.eye(4)
    lps[:3, 0] = first.orientation[:3] * first.spacing[1]
    lps[:3, 1] = first.orientation[3:] * first.spacing[0]
    lps[:3, 2] = step
    lps[:3, 3] = origin
    return np.asarray(_LPS_TO_RAS @ lps)
