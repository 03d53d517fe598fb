"""DICOM images put in order along their normal."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trivox.volumes.dicom.frames import Frame

SAME_PLACE = 0.01
"""mm; positions in headers are rounded to about this."""
_AXIAL = 0.8
"""Least share of the body's axis in the normal of images across the body."""
Vector = NDArray[np.float64]


def alike(frames: Iterable[Frame]) -> list[list[Frame]]:
    """Group frames by size, pixel spacing and orientation, largest group first."""
    groups: list[list[Frame]] = []
    for frame in frames:
        group = next((group for group in groups if same_plane(group[0], frame)), None)
        if group is None:
            groups.append([frame])
        else:
            group.append(frame)
    return sorted(groups, key=len, reverse=True)


def same_plane(one: Frame, other: Frame) -> bool:
    """Whether two frames agree in size, pixel spacing and orientation."""
    if one.size != other.size:
        return False
    if not np.allclose(one.spacing, other.spacing, rtol=1e-3):
        return False
    if one.orientation is None or other.orientation is None:
        return one.orientation is other.orientation
    return float(np.abs(one.orientation - other.orientation).max()) <= 1e-3


def is_placed(frames: Iterable[Frame]) -> bool:
    """Whether all frames say where they lie."""
    return all(
        frame.position is not None and frame.orientation is not None for frame in frames
    )


def normal_of(frame: Frame) -> Vector:
    """The unit vector across the image of a frame that is placed."""
    assert frame.orientation is not None
    return np.cross(frame.orientation[:3], frame.orientation[3:])


def is_axial(frame: Frame) -> bool:
    """Whether an image lies across the body."""
    return frame.orientation is not None and abs(normal_of(frame)[2]) >= _AXIAL


def in_places(frames: list[Frame]) -> tuple[Vector, list[list[Frame]]]:
    """Height along the normal, ascending, and the images at each; those within
    `SAME_PLACE` are one place. The frames are placed.
    """
    normal = normal_of(frames[0])
    positions = [frame.position for frame in frames if frame.position is not None]
    heights = np.array([position @ normal for position in positions])
    order = np.argsort(heights, kind="stable")
    starts: list[float] = []
    places: list[list[Frame]] = []
    previous = -np.inf
    for index in order:
        height = heights[index]
        if height - previous > SAME_PLACE:
            starts.append(height)
            places.append([])
        places[-1].append(frames[index])
        previous = height
    return np.array(starts), places
