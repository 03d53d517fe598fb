"""Rotation, scaling and elastic deformation of patches: drawn first, read just large
enough, applied in one sampling.

Angles and displacements are physical: a rotation turns millimetres, not voxels, so
anisotropic anatomy keeps its shape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.config.options import Augmentation
from trivox.volumes.resampling import (
    Corners,
    apply_along,
    cell_corners,
    linear_matrix,
    mixed_inner_cells,
    neighbours_of,
    resample_labels,
    vote,
)
from trivox.volumes.volume import Array, Shape, Spacing

CONTROL_POINTS = 8
"""Elastic control points an axis; the displacement in between is interpolated linearly.
"""
GRID_OF_POINTS = (3, CONTROL_POINTS, CONTROL_POINTS, CONTROL_POINTS)
"""Shape of their displacements."""
FRAME = (1, 1, 1, 1, 1, 1)
"""A voxel of padding at each end of each axis."""
FLAT = 3
"""Patches this many times longer in plane than across rotate about the coarse axis only
(nnU-Net's "dummy 2-D").
"""


@dataclass(frozen=True, eq=False)
class SpatialChange:
    """Where each voxel of the new patch comes from.

    matrix: `(3, 3)` from an offset to the patch centre (voxels, z y x) to the offset in
    the source; displacement: `(3, k, k, k)` additional source voxels at control points,
    or None.
    """

    matrix: Array
    displacement: Array | None = None

    @property
    def is_scaling(self) -> bool:
        """Whether nothing but the axes' scale changes."""
        return (
            self.displacement is None
            and not (self.matrix - np.diag(self.matrix.diagonal())).any()
        )

    def box(self, patch: Shape) -> Shape:
        """Source box that holds everything the patch needs; its size differs from the
        patch's by even numbers.
        """
        half = (np.array(patch) - 1) / 2
        reach = np.abs(self.matrix) @ half + 1
        if self.displacement is not None:
            bent = np.abs(self.displacement).reshape(3, -1)
            reach = reach + bent.max(axis=1)
        beyond = np.maximum(0, np.ceil(reach - half)).astype(int)
        z, y, x = (np.array(patch) + 2 * beyond).tolist()
        return z, y, x


def draw_spatial(
    rng: np.random.Generator, settings: Augmentation, patch: Shape, spacing: Spacing
) -> SpatialChange | None:
    """Draw rotation, scaling and elastic deformation for one sample; None where the
    patch is to be taken as it is.
    """
    rotate = rng.random() < settings.rotation
    scale = rng.random() < settings.scaling
    bend = rng.random() < settings.elastic
    degrees = settings.rotation_degrees
    angles = np.deg2rad(rng.uniform(-degrees, degrees, 3))
    factor = rng.uniform(*settings.scaling_range)
    points = rng.normal(0, settings.elastic_mm, GRID_OF_POINTS) if bend else None
    if not (rotate or scale or bend):
        return None
    flat = max(patch) > FLAT * patch[0]
    if flat:
        angles[1:] = 0
        angles[0] = rng.uniform(-math.pi, math.pi)
    turn = rotation_matrix(angles) if rotate else np.eye(3)
    edges = np.array(spacing)
    # new voxel -> mm, turned and scaled -> source voxel; scaling by f enlarges, so the
    # source offset shrinks
    matrix = turn * edges[None, :] / edges[:, None]
    if scale:
        matrix = matrix / factor
    if flat:
        matrix[0] = (1, 0, 0)  # slices stay slices
        matrix[:, 0] = (1, 0, 0)
    matrix = matrix.astype(np.float32)
    if points is None:
        return SpatialChange(matrix)
    displacement = points / edges[:, None, None, None]
    displacement[0] *= not flat
    return SpatialChange(matrix, displacement.astype(np.float32))


def rotation_matrix(angles: Array) -> Array:
    """Rotation `(3, 3)` on `(z, y, x)` vectors: about z, then y, then x, by `angles` in
    radians.
    """
    sz, sy, sx = np.sin(angles)
    cz, cy, cx = np.cos(angles)
    about_z = np.array(
        [
            [1, 0, 0],
            [0, cz, -sz],
            [0, sz, cz],
        ]
    )
    about_y = np.array(
        [
            [cy, 0, -sy],
            [0, 1, 0],
            [sy, 0, cy],
        ]
    )
    about_x = np.array(
        [
            [cx, -sx, 0],
            [sx, cx, 0],
            [0, 0, 1],
        ]
    )
    return np.asarray(about_x @ about_y @ about_z)


def common_box(changes: Sequence[SpatialChange], patch: Shape) -> Shape:
    """The box that serves all changes of a batch, so that one sampling call does."""
    boxes = [change.box(patch) for change in changes]
    z, y, x = (max(sizes) for sizes in zip(*boxes, strict=True))
    return z, y, x


def apply_spatial(
    images: Tensor, labels: Tensor, changes: Sequence[SpatialChange], patch: Shape
) -> tuple[Tensor, Tensor]:
    """Sample `(b, c, *box)` and `(b, *box)` into patches: images linearly, labels by
    the linear vote of their corners.
    """
    warped = torch.empty(*images.shape[:2], *patch, device=images.device)
    warped_labels = torch.empty(
        len(labels), *patch, dtype=labels.dtype, device=labels.device
    )
    for index, change in enumerate(changes):
        if change.is_scaling:
            warped[index], warped_labels[index] = _scale(
                images[index], labels[index], change, patch
            )
    turned = [index for index, change in enumerate(changes) if not change.is_scaling]
    if turned:
        turns = [changes[index] for index in turned]
        grid = grid_tables(turns, patch, images.shape[2:]).grid().to(images.device)
        sources = images if len(turned) == len(changes) else images[turned]
        warped[turned] = F.grid_sample(
            sources, grid, mode="bilinear", padding_mode="zeros", align_corners=True
        )
        for index, places in zip(turned, grid, strict=True):
            warped_labels[index] = _warp_labels(labels[index], places)
    return warped, warped_labels


def _scale(
    image: Tensor, label: Tensor, change: SpatialChange, patch: Shape
) -> tuple[Tensor, Tensor]:
    """A change along the axes alone is separable: three small matrix products instead
    of a sampling.
    """
    corners: list[Corners] = []
    for axis, (size, new) in enumerate(zip(label.shape, patch, strict=True)):
        index = torch.arange(new, dtype=torch.float64)
        offset = index - (new - 1) / 2
        step = float(change.matrix[axis, axis])
        centre = (size - 1) / 2 + step * offset
        corners.append(neighbours_of(centre, size))
    growth = [new / size for size, new in zip(label.shape, patch, strict=True)]
    for axis in sorted(range(3), key=growth.__getitem__):  # shrink first
        matrix = linear_matrix(corners[axis], label.shape[axis])
        image = apply_along(image, matrix, axis)
    return image, resample_labels(label, corners)


@dataclass(frozen=True, eq=False)
class GridTables:
    """What a sampling grid is summed from, small enough to be made on the host.

    along: a tensor an axis, `(b, z, 1, 1, 3)`, `(b, 1, y, 1, 3)` and `(b, 1, 1, x, 3)`;
    bends: `(b, 3, k, k, k)` at the control points, or None.
    """

    along: tuple[Tensor, Tensor, Tensor]
    bends: Tensor | None

    def grid(self) -> Tensor:
        """Normalised coordinates `(b, z, y, x, 3)` in torch's order (x, y, z)."""
        z, y, x = self.along
        grid = (z + y) + x
        if self.bends is not None:
            field = F.interpolate(
                self.bends, size=grid.shape[1:4], mode="trilinear", align_corners=True
            )
            grid += field.movedim(1, -1)
        return grid


def grid_tables(
    changes: Sequence[SpatialChange], patch: Shape, box: Sequence[int]
) -> GridTables:
    """The tables for patches from boxes of size `box`."""
    size = torch.tensor(box, dtype=torch.float32)
    scale = 2 / (size - 1).clamp(min=1)
    matrices = torch.from_numpy(np.stack([change.matrix for change in changes]))
    matrices = (matrices * scale[:, None]).flip(1)  # rows x, y, z
    along: list[Tensor] = []
    for axis, count in enumerate(patch):
        index = torch.arange(count, dtype=torch.float32)
        offset = index - (count - 1) / 2
        along.append(offset[:, None] * matrices[:, None, :, axis])  # (b, count, 3)
    z, y, x = along
    bends = None
    if any(change.displacement is not None for change in changes):
        bends = (_bends(changes) * scale[:, None, None, None]).flip(1)  # x, y, z
    return GridTables(
        (z[:, :, None, None], y[:, None, :, None], x[:, None, None]), bends
    )


def _bends(changes: Sequence[SpatialChange]) -> Tensor:
    """Displacements at the control points `(b, 3, k, k, k)`, zero where there are
    none.
    """
    bends = np.zeros((len(changes), *GRID_OF_POINTS), np.float32)
    for bend, change in zip(bends, changes, strict=True):
        if change.displacement is not None:
            bend[...] = change.displacement
    return torch.from_numpy(bends)


def _warp_labels(label: Tensor, grid: Tensor) -> Tensor:
    """Label `(*box)` at `(z, y, x, 3)` coordinates; only voxels whose cell holds
    several labels are voted on.
    """
    # the lowest bit says "vote"; a rim of such cells answers for coordinates at the
    # border and outside
    low, high = torch.aminmax(label)
    narrow = int(low) >= -64 and int(high) < 64
    # bytes: a quarter of the memory traffic
    small = label.to(torch.int8 if narrow else torch.int32)
    vote_cells = F.pad(mixed_inner_cells(small), (1, 2, 1, 2, 1, 2), value=True)
    framed = F.pad(small << 1, FRAME)
    packed = framed | vote_cells
    index = _cell_index(grid, label.shape)
    cells = packed.view(-1)[index]
    result = (cells >> 1).to(label.dtype)
    undecided = torch.nonzero((cells & 1).view(-1))[:, 0]
    if len(undecided):
        coordinates = grid.reshape(-1, 3)[undecided]
        result.view(-1)[undecided] = _vote_at(label, coordinates)
    return result


def _cell_index(grid: Tensor, size: Sequence[int]) -> Tensor:
    """Flat index, in a box with a rim of one voxel, of the cell that each normalised
    coordinate lies in.
    """
    # whole numbers stay whole
    small = math.prod(voxels + 2 for voxels in size) < 2**24
    exact = torch.float32 if small else torch.float64
    index = grid.new_zeros(grid.shape[:-1], dtype=exact)
    for axis, voxels in enumerate(size):
        place = grid[..., 2 - axis].to(exact).add(1)
        place.mul_((voxels - 1) / 2).floor_()
        place.add_(1).clamp_(0, voxels + 1)
        index.mul_(voxels + 2).add_(place)
    return index.long()


def _vote_at(label: Tensor, coordinates: Tensor) -> Tensor:
    """The linear vote of the eight corners at normalised coordinates `(n, 3)` (x, y,
    z); outside counts as background.
    """
    framed = F.pad(label, FRAME)
    cells: list[Corners] = []
    for axis, size in enumerate(label.shape):
        place = coordinates[:, 2 - axis]
        centre = (place + 1) * ((size - 1) / 2) + 1
        low = torch.floor(centre)
        share = centre - low
        lower = low.clamp(0, size + 1).long()
        upper = (low + 1).clamp_(0, size + 1).long()
        cells.append((lower, upper, share))
    index, weight = cell_corners(cells, framed.shape)
    return vote(framed.view(-1)[index], weight)
