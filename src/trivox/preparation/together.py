"""Augmenting a whole batch at once on a GPU: few launches, and nothing that waits.

The changes are those of `spatial` and `intensity`, drawn by the same generators; what a
CPU does sample by sample is done here by one operator for all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.preparation.intensity import (
    IntensityChange,
    Part,
    apply_intensity,
    intensity_parts,
)
from trivox.preparation.spatial import GridTables, SpatialChange, grid_tables
from trivox.volumes.volume import Shape

FEW = 2**24
"""Weights of corners, up to which the votes of all eight are counted at once (1 GB):
more would take too much memory.
"""

Patches = tuple[Tensor, Tensor]
"""Images `(n, c, z, y, x)` and label indices `(n, z, y, x)`."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What is done to the samples of a batch in the order in which they are read: those
    taken as they are, and then those to be warped.

    tensors: by name, what it takes on the device; intensity: changes of all samples in
    that order; parts: what they consist of, see `intensity_parts`.
    """

    tensors: Mapping[str, Tensor]
    intensity: Sequence[IntensityChange]
    parts: Sequence[Part]

    @classmethod
    def of(
        cls,
        spatial: Sequence[SpatialChange],
        warped: Sequence[int],
        intensity: Sequence[IntensityChange],
        *,
        patch: Shape,
        box: Shape,
        channels: int,
    ) -> "Changes":
        """Of the samples at the places `warped` of the batch, and of all of them."""
        plain = [i for i in range(len(intensity)) if i not in warped]
        order = [*plain, *warped]
        read = [intensity[i] for i in order]
        parts = intensity_parts(read, (channels, *patch), apart=False)
        tensors = _tables(spatial, patch, box) if spatial else {}
        tensors |= _places(order, intensity, (channels, *patch))
        for number, part in enumerate(parts):
            named = {f"{number}.{i}": each for i, each in enumerate(part.tensors)}
            tensors |= named
        return cls(tensors, read, parts)

    def apply(
        self, tensors: Mapping[str, Tensor], plain: Patches, boxed: Patches | None
    ) -> Patches:
        """The batch in its own order, float32; `tensors` and patches are on the device,
        which may be changed.
        """
        images, labels = self._joined(tensors, plain, boxed)
        parts = [
            part.with_tensors([tensors[f"{n}.{i}"] for i in range(len(part.tensors))])
            for n, part in enumerate(self.parts)
        ]
        images = apply_intensity(images, self.intensity, parts)
        return _placed(images, labels, tensors)

    def _joined(
        self, tensors: Mapping[str, Tensor], plain: Patches, boxed: Patches | None
    ) -> Patches:
        """All samples in reading order."""
        images, labels = plain
        images = images.float()
        if boxed is None:
            return images, labels
        warped, warped_labels = _warped(boxed, tensors)
        if not len(images):
            return warped, warped_labels
        return torch.cat([images, warped]), torch.cat([labels, warped_labels])


def _tables(
    spatial: Sequence[SpatialChange], patch: Shape, box: Shape
) -> dict[str, Tensor]:
    """What the warping of boxes takes."""
    tables = grid_tables(spatial, patch, box)
    z, y, x = tables.along
    size = torch.tensor(box[::-1], dtype=torch.float32)
    # whether a corner is the upper one along x, y and z, (3, 8)
    upper = torch.tensor([[0, 1] * 4, [0, 0, 1, 1] * 2, [0] * 4 + [1] * 4]).float()
    boxes = torch.tensor([(0, 0, box[0] * index) for index in range(len(spatial))])
    named = {
        "grid.z": z,
        "grid.y": y,
        "grid.x": x,
        "half": (size - 1) / 2,
        "lower": 1 - upper,
        "slope": 2 * upper - 1,
        "box": boxes[:, None, None, None],
    }
    return named if tables.bends is None else {**named, "bends": tables.bends}


def _places(
    order: Sequence[int], changes: Sequence[IntensityChange], shape: Sequence[int]
) -> dict[str, Tensor]:
    """Which voxel of the samples as read each voxel of the batch is: flat indices, as
    sums of two tables each; none where nothing moves.
    """
    channels, depth, rows, columns = shape
    flips = np.array([change.mirror for change in changes])  # (b, 3)
    if list(order) == list(range(len(order))) and not flips.any():
        return {}
    z, y, x = (
        np.where(flips[:, axis, None], np.arange(size)[::-1], np.arange(size))
        for axis, size in enumerate((depth, rows, columns))
    )  # (b, size)
    sample = np.argsort(order)[:, None]
    channel = sample * channels + np.arange(channels)  # (b, c)
    slices = channel[:, :, None] * depth + z[:, None]  # (b, c, z)
    plane = y[:, :, None] * columns + x[:, None]  # (b, y, x)
    voxels = rows * columns
    named = {
        "image slices": slices[..., None, None] * voxels,
        "label slices": (sample * depth + z)[..., None, None] * voxels,
        "plane": plane[:, None],
    }
    return {name: torch.from_numpy(table) for name, table in named.items()}


def _placed(images: Tensor, labels: Tensor, tensors: Mapping[str, Tensor]) -> Patches:
    """Every sample at its place in the batch, mirrored."""
    if "plane" in tensors:
        plane = tensors["plane"]
        images = images.take(tensors["image slices"] + plane[:, None])
        labels = labels.take(tensors["label slices"] + plane)
    return images, labels.to(torch.int16)


def _warped(boxed: Patches, tensors: Mapping[str, Tensor]) -> Patches:
    """Patches from boxes: images linearly, labels by the linear vote of their corners."""
    images, labels = boxed
    along = (tensors["grid.z"], tensors["grid.y"], tensors["grid.x"])
    grid = GridTables(along, tensors.get("bends")).grid()
    warped = F.grid_sample(
        images.float(),
        grid,
        mode="bilinear",
        padding_mode="zeros",
        align_corners=True,
    )
    return warped, _voted(labels, grid, tensors)


def _voted(labels: Tensor, grid: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Labels `(n, *box)` at normalised coordinates `(n, z, y, x, 3)`, which lie inside
    the box: the one with the largest linear weight among the eight corners of a cell.

    Every voxel votes: to find those that need it would wait for them to be counted.
    """
    share = torch.addcmul(tensors["half"], grid, tensors["half"])  # in voxels
    low = share.long()
    share.sub_(low)
    low += tensors["box"]  # in boxes that lie on each other
    x, y, z = low.unbind(-1)
    cells = labels.flatten(0, 1).unfold(0, 2, 1).unfold(1, 2, 1).unfold(2, 2, 1)
    corners = cells[z, y, x].flatten(-3)  # (n, z, y, x, 8)
    ends = torch.addcmul(tensors["lower"], share[..., None], tensors["slope"])
    weight = ends.prod(-2)  # (n, z, y, x, 8)
    at_once = 8 if weight.numel() <= FEW else 4
    totals = [
        ((some[..., None] == corners[..., None, :]) * weight[..., None, :]).sum(-1)
        for some in corners.split(at_once, dim=-1)
    ]
    together = totals[0] if len(totals) == 1 else torch.cat(totals, -1)
    winner = together.argmax(-1, keepdim=True)
    return corners.gather(-1, winner)[..., 0]
