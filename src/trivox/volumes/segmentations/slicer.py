"""Segmentations of 3D Slicer: NRRD whose header names segments, in one layer or in
several that overlap.

Each `SegmentN_...` of the header is a segment: the voxels of layer `Layer` that hold
`LabelValue`. Slicer before 5 wrote a layer of 0 and 1 for each, without saying so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trivox.errors import FormatError
from trivox.volumes.header import MAX_BYTES, Header, kept_dtype, require_size
from trivox.volumes.headers.nrrd import parse_nrrd
from trivox.volumes.headers.promise import Promise
from trivox.volumes.segmentations.planes import Planes, laid
from trivox.volumes.segmentations.segments import (
    Grid,
    Patch,
    Segment,
    cut_out,
    require_inside,
)
from trivox.volumes.segmentations.slicer_fields import segment_fields
from trivox.volumes.volume import Array


class Part(NamedTuple):
    """Where a segment is: in which layer, by which value."""

    layer: int
    value: int


@dataclass(frozen=True, eq=False)
class SlicerSegments:
    """A `.seg.nrrd`; parts: of each segment; promise: of its voxels."""

    path: Path
    segments: tuple[Segment, ...]
    parts: tuple[Part, ...]
    promise: Promise

    @property
    def kind(self) -> str:
        """What it is."""
        layers = len({part.layer for part in self.parts})
        return f"segmentation of 3D Slicer ({layers} layers)"

    def grid(self) -> Grid:
        """Its voxels."""
        return Grid(self._header.shape, self._header.affine)

    def remarks(self, grid: Grid) -> Iterator[str]:
        """What its reader has to say."""
        yield from self.promise.remarks

    @property
    def _header(self) -> Header:
        axes = list(self.promise.sizes)
        axis = self.promise.channel_axis
        layers = 1 if axis is None else axes.pop(axis)
        x, y, z = [*axes, *([1] * (3 - len(axes)))]
        kind = kept_dtype(self.promise.dtype)
        return Header((z, y, x), self.promise.affine, layers, kind)

    def patches(self, grid: Grid) -> Iterator[Patch]:
        """The masks on a grid."""
        header = self._header
        require_size(self.path, header, max_bytes=MAX_BYTES)
        self.promise.require_kept()
        laying = laid(_planes(header), grid)
        layers = self.promise.read(header.dtype)
        layers = layers.reshape(header.channels, *header.shape)
        places = {part: place for place, part in enumerate(self.parts)}
        for layer, slices in enumerate(layers):
            for corner, plane in zip(laying.corners, slices, strict=True):
                z, y, x = corner.tolist()
                for value in self._values(plane):
                    place = self._place(places, layer, value)
                    patch = cut_out(place, laying.turned, (z, y, x), plane == value)
                    if patch is not None:
                        require_inside(patch, laying.shape, self.segments[place])
                        yield patch

    def _place(self, places: dict[Part, int], layer: int, value: int) -> int:
        place = places.get(Part(layer, value))
        if place is None:
            raise FormatError(
                f"{self.path}: layer {layer} holds the value {value}, which is none of "
                "its segments; save it again in 3D Slicer"
            )
        return place

    def _values(self, plane: Array) -> list[int]:
        """The values in a plane but 0; raises `FormatError` for what is not whole."""
        values = np.unique(plane)
        if values.dtype.kind == "f" and (values != np.rint(values)).any():
            raise FormatError(
                f"{self.path}: holds values that are no whole numbers; save its label "
                "map, not its fractions"
            )
        return [int(value) for value in values if value]


def _planes(header: Header) -> Planes:
    """The slices of a grid."""
    across, down, step = header.affine[:3, :3].T
    slices = np.arange(header.shape[0])[:, None]
    positions = header.affine[:3, 3] + slices * step
    return Planes(header.shape[1:], across, down, positions, step=step)


def read_slicer(path: Path) -> SlicerSegments:
    """What a `.seg.nrrd` marks; raises `FormatError` for a header that contradicts
    itself.
    """
    listed = segment_fields(path)
    promise = parse_nrrd(path)
    segments = []
    parts = []
    for place, fields in enumerate(listed.values()):
        value = int(fields.get("LabelValue", 1))
        without = place if "LabelValue" not in fields else 0
        parts.append(Part(int(fields.get("Layer", without)), value))
        name = " ".join(fields.get("Name", fields.get("ID", "")).split())[:64]
        segments.append(Segment(value, name))
    if len(set(parts)) < len(parts):
        raise FormatError(
            f"{path}: two of its segments are the same value of one layer; save it again "
            "in 3D Slicer"
        )
    return SlicerSegments(path, tuple(segments), tuple(parts), promise)
