"""What is measured of each structure of a case; None is what cannot be known."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
from scipy.ndimage import find_objects

from trivox.datasets.boxes import Box
from trivox.evaluation.metrics.components import around, label_components
from trivox.results.measuring.borders import Field, Mask
from trivox.results.measuring.diameters import axial_lines, longest_line
from trivox.results.measuring.rows import Intensity, StructureRow
from trivox.volumes.volume import Array, Volume

PERCENTILES = (5, 25, 50, 75, 95)
TO_LPS = (-1.0, -1.0, 1.0)
"""From RAS, along each axis."""


@dataclass(frozen=True, eq=False)
class Structures:
    """The structures of a label map.

    labels: file values `(1, z, y, x)`; segments: name -> the values that belong to it,
    those of several names may overlap.
    """

    labels: Volume
    segments: Mapping[str, Sequence[int]]

    @cached_property
    def _values(self) -> Array:
        """All values that belong to a structure, ascending."""
        return np.unique([*chain.from_iterable(self.segments.values())]).astype(int)

    @cached_property
    def numbers(self) -> Array:
        """Labels as 1, 2, ... in the order of their values, 0 for all others, `(z, y,
        x)`.
        """
        values = self._values
        labels = self.labels.array[0]
        numbers = np.zeros(labels.shape, np.min_scalar_type(len(values)))
        if not len(values):
            return numbers
        for row, source in zip(numbers, labels, strict=True):
            place = np.searchsorted(values, source).clip(max=len(values) - 1)
            row[...] = np.where(values[place] == source, place + 1, 0)
        return numbers

    @cached_property
    def _boxes(self) -> list[Box | None]:
        """The box of each number from 1 on."""
        boxes: list[Any] = find_objects(self.numbers, max_label=len(self._values))
        return boxes

    def members(self, name: str) -> tuple[int, ...]:
        """The numbers that belong to a structure."""
        places = [self._values.searchsorted(value) for value in self.segments[name]]
        return tuple(int(place) + 1 for place in places)

    def place(self, name: str) -> tuple[Box, Mask]:
        """The box round a structure and its mask there; an empty box where it was not
        found.
        """
        members = self.members(name)
        box = around([self._boxes[number - 1] for number in members])
        return box, np.isin(self.numbers[box], members)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A structure that was found: its mask in a box of an image.

    flat: the axis along which the image has one slice; axial: along which axial slices
    are counted; touched: sides of the field by axis; leaves: whether it reaches what was
    not measured.
    """

    box: Box
    mask: Mask
    image: Volume
    flat: int | None
    axial: int
    touched: Mapping[int, Sequence[str]]
    leaves: bool

    @classmethod
    def of(cls, box: Box, mask: Mask, image: Volume, field: Field) -> "_Seen":
        """A structure in the field of an image."""
        return cls(
            box,
            mask,
            image,
            field.flat_axis,
            field.axial_axis,
            field.touched(box),
            field.leaves(mask, box),
        )

    @property
    def truncated(self) -> bool:
        """Whether it goes on beyond what the image shows."""
        return bool(self.touched) or self.leaves

    @property
    def truncated_in_slices(self) -> bool:
        """Whether its largest slice may lie beyond, or go on beyond."""
        return bool(self.touched.keys() - {self.flat}) or self.leaves

    @cached_property
    def voxels(self) -> int:
        """How many there are."""
        return int(np.count_nonzero(self.mask))

    def centre(self) -> list[float]:
        """Mean of the voxels' centres `[x, y, z]` in RAS mm."""
        places = []
        for axis, side in enumerate(self.box):
            others = tuple({0, 1, 2} - {axis})
            counts = self.mask.sum(axis=others)
            along = np.arange(side.start, side.stop)
            places.append(float(counts @ along) / self.voxels)
        z, y, x = places
        world = self.image.affine @ [x, y, z, 1.0]
        return [float(value) for value in world[:3]]


def measure_structures(
    labels: Volume,
    segments: Mapping[str, Sequence[int]],
    image: Volume,
    *,
    channels: Sequence[str],
    absent: Sequence[int] = (),
    volumes: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, StructureRow]:
    """All numbers of each structure of a label map.

    labels: file values `(1, z, y, x)`; segments: name -> the values that belong to it;
    image: `(c, z, y, x)` on the same grid; channels: their names; absent: indices of
    those that the case lacks; volumes: what predictions.json says of volumes by name.
    """
    structures = Structures(labels, segments)
    field = Field.of(image)
    rows: dict[str, StructureRow] = {}
    for name in segments:
        box, mask = structures.place(name)
        row = _not_found(channels)
        if mask.any():
            seen = _Seen.of(box, mask, image, field)
            row |= _what_is_seen(seen)
            row |= _axial(seen)
            row |= _whole(seen)
            row["intensity"] = _intensities(seen, channels, absent)
        if volumes and not row["truncated"]:
            row |= _intervals(volumes.get(name, {}))
        rows[name] = row
    return rows


def _intervals(volume: Mapping[str, Any]) -> StructureRow:
    """What predictions.json says about how sure a volume is."""
    interval = volume.get("ci95_ml")
    return {
        "volume_ci95_ml": [float(bound) for bound in interval] if interval else None,
        "volume_ml_low": volume.get("volume_ml_low"),
        "volume_ml_high": volume.get("volume_ml_high"),
    }


def _not_found(channels: Sequence[str]) -> StructureRow:
    return {
        "present": False,
        "truncated": False,
        "touches": [],
        "voxels": 0,
        "seen_ml": 0.0,
        "volume_ml": 0.0,
        "volume_ci95_ml": None,
        "volume_ml_low": None,
        "volume_ml_high": None,
        "longest_mm": None,
        "axial_long_mm": None,
        "axial_short_mm": None,
        "axial_slice": None,
        "components": None,
        "centroid_ras_mm": None,
        "centroid_lps_mm": None,
        "box_voxels": None,
        "intensity": dict.fromkeys(channels),
    }


def _what_is_seen(seen: _Seen) -> StructureRow:
    """What holds of a structure that goes on beyond the image as well."""
    sides = list(chain.from_iterable(seen.touched.values()))
    return {
        "present": True,
        "truncated": seen.truncated,
        "touches": sides,
        "voxels": seen.voxels,
        "seen_ml": seen.voxels * seen.image.voxel_ml,
        "volume_ml": None,
        "box_voxels": {
            "first": [side.start for side in seen.box[::-1]],
            "last": [side.stop - 1 for side in seen.box[::-1]],
        },
    }


def _whole(seen: _Seen) -> StructureRow:
    """What holds of a structure that the image shows whole."""
    if seen.truncated:
        return {}
    centre = seen.centre()
    return {
        "volume_ml": seen.voxels * seen.image.voxel_ml,
        "longest_mm": longest_line(seen.mask, seen.image.steps),
        "components": int(label_components(seen.mask).max()),
        "centroid_ras_mm": centre,
        "centroid_lps_mm": np.multiply(centre, TO_LPS).tolist(),
    }


def _axial(seen: _Seen) -> StructureRow:
    """Lines within a slice, where the slice that shows the longest one is seen."""
    if seen.truncated_in_slices:
        return {}
    lines = axial_lines(seen.mask, seen.image.steps, seen.axial)
    return {
        "axial_long_mm": lines.long_mm,
        "axial_short_mm": lines.short_mm,
        "axial_slice": seen.box[seen.axial].start + lines.slice,
    }


def _intensities(
    seen: _Seen, channels: Sequence[str], absent: Sequence[int]
) -> dict[str, Intensity | None]:
    """By channel; None of those that the case lacks."""
    values = dict[str, Intensity | None]()
    for number, channel in enumerate(channels):
        array = seen.image.array[number][seen.box]
        values[channel] = None if number in absent else _intensity(array[seen.mask])
    return values


def _intensity(values: Array) -> Intensity:
    low, quarter, median, three, high = np.percentile(values, PERCENTILES).tolist()
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        "min": float(values.min()),
        "p05": low,
        "p25": quarter,
        "median": median,
        "p75": three,
        "p95": high,
        "max": float(values.max()),
    }
