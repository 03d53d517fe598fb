"""Rotation, scaling and elastic deformation of patches: drawn first, read just large enough, applied in one sampling.

Angles and displacements are physical: a rotation turns millimetres, not voxels, so anisotropic anatomy keeps its shape.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.config import Augmentation
from trivox.volumes import Array, Shape, Spacing
from trivox.volumes.resampling import mixed_cells, vote

CONTROL_POINTS = 8
"""Elastic control points an axis; the displacement in between is interpolated linearly."""
FLAT = 3
"""Patches this many times longer in plane than across rotate about the coarse axis only (nnU-Net's "dummy 2-D")."""


@dataclass(frozen=True, eq=False)
class SpatialChange:
    """Where each voxel of the new patch comes from.

    matrix: `(3, 3)` from an offset to the patch centre (voxels, z y x) to the offset in the source; displacement:
    `(3, k, k, k)` additional source voxels at control points, or None.
    """

    matrix: Array
    displacement: Array | None = None

    def box(self, patch: Shape) -> Shape:
        """Source box that holds everything the patch needs; its size differs from the patch's by even numbers."""
        reach = np.abs(self.matrix) @ ((np.array(patch) - 1) / 2) + 1
        if self.displacement is not None:
            reach = reach + np.abs(self.displacement).reshape(3, -1).max(axis=1)
        half = [max(0, math.ceil(r - (size - 1) / 2)) for r, size in zip(reach, patch, strict=True)]
        z, y, x = (size + 2 * extra for size, extra in zip(patch, half, strict=True))
        return z, y, x


def draw_spatial(
    rng: np.random.Generator, settings: Augmentation, patch: Shape, spacing: Spacing
) -> SpatialChange | None:
    """Draw rotation, scaling and elastic deformation for one sample; None where the patch is to be taken as it is."""
    rotate, scale, bend = (rng.random() < p for p in (settings.rotation, settings.scaling, settings.elastic))
    angles = np.deg2rad(rng.uniform(-settings.rotation_degrees, settings.rotation_degrees, 3))
    factor = rng.uniform(*settings.scaling_range)
    points = rng.normal(0, settings.elastic_mm, (3, *(CONTROL_POINTS,) * 3)) if bend else None
    if not (rotate or scale or bend):
        return None
    flat = max(patch) > FLAT * patch[0]
    if flat:
        angles[1:] = 0
        angles[0] = rng.uniform(-math.pi, math.pi)
    turn = rotation_matrix(angles) if rotate else np.eye(3)
    edges = np.array(spacing)
    # new voxel -> mm, turned and scaled -> source voxel; scaling by f enlarges, so the source offset shrinks
    matrix = (turn * edges[None, :] / edges[:, None]) / (factor if scale else 1.0)
    if flat:
        matrix[0], matrix[:, 0] = (1, 0, 0), (1, 0, 0)  # slices stay slices
    displacement = None
    if points is not None:
        displacement = points / edges[:, None, None, None]
        displacement[0] *= not flat
    return SpatialChange(matrix.astype(np.float32), None if displacement is None else displacement.astype(np.float32))


def rotation_matrix(angles: Array) -> Array:
    """Rotation `(3, 3)` on `(z, y, x)` vectors: about z, then y, then x, by `angles` in radians."""
    (sz, sy, sx), (cz, cy, cx) = np.sin(angles), np.cos(angles)
    about_z = np.array([[1, 0, 0], [0, cz, -sz], [0, sz, cz]])
    about_y = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    about_x = np.array([[cx, -sx, 0], [sx, cx, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


def common_box(changes: Sequence[SpatialChange], patch: Shape) -> Shape:
    """The box that serves all changes of a batch, so that one sampling call does."""
    z, y, x = (max(sizes) for sizes in zip(*(change.box(patch) for change in changes), strict=True))
    return z, y, x


def apply_spatial(
    images: Tensor, labels: Tensor, changes: Sequence[SpatialChange], patch: Shape
) -> tuple[Tensor, Tensor]:
    """Sample `(b, c, *box)` and `(b, *box)` into patches: images linearly, labels by the linear vote of their corners."""
    grid = sampling_grid(changes, patch, images.shape[2:], images.device)
    warped = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return warped, torch.stack([_warp_labels(label, at) for label, at in zip(labels, grid, strict=True)])


def sampling_grid(changes: Sequence[SpatialChange], patch: Shape, box: Sequence[int], device: torch.device) -> Tensor:
    """Normalised coordinates `(b, z, y, x, 3)` in torch's order (x, y, z) for boxes of size `box`."""
    size = torch.tensor(box, dtype=torch.float32)
    scale = 2 / (size - 1).clamp(min=1)
    offsets = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in patch]
    parts = []
    for change in changes:
        matrix = torch.from_numpy(change.matrix) * scale[:, None]
        matrix = matrix.flip(0).to(device)  # rows x, y, z
        z, y, x = (offset[:, None] * matrix[:, axis] for axis, offset in enumerate(offsets))
        parts.append(z[:, None, None] + y[:, None] + x)  # (z, y, x, 3)
    grid = torch.stack(parts)
    if any(change.displacement is not None for change in changes):
        none = torch.zeros(3, *(CONTROL_POINTS,) * 3)
        bends = [none if c.displacement is None else torch.from_numpy(c.displacement) for c in changes]
        field = torch.stack(bends).to(device) * scale.to(device)[None, :, None, None, None]
        field = F.interpolate(field.flip(1), size=tuple(patch), mode="trilinear", align_corners=True)
        grid += field.movedim(1, -1)
    return grid


def _warp_labels(label: Tensor, grid: Tensor) -> Tensor:
    """Label `(*box)` at `(z, y, x, 3)` coordinates; only voxels near a boundary are voted on."""
    mixed = mixed_cells(label)
    for axis in range(3):  # any of the eight cells round a voxel
        size = mixed.shape[axis]
        mixed = mixed.clone()
        mixed.narrow(axis, 1, size - 1).logical_or_(mixed.narrow(axis, 0, size - 1).clone())
    packed = (label.float() + 0.5 * mixed)[None, None]  # half numbers mark voxels near a boundary
    sampled = F.grid_sample(packed, grid[None], mode="nearest", padding_mode="zeros", align_corners=True)[0, 0]
    result = torch.floor(sampled)
    undecided = torch.nonzero((sampled != result).reshape(-1))[:, 0]
    result = result.to(label.dtype)
    if len(undecided):
        result.view(-1)[undecided] = _vote_at(label, grid.reshape(-1, 3)[undecided])
    return result


def _vote_at(label: Tensor, coordinates: Tensor) -> Tensor:
    """The linear vote of the eight corners at normalised coordinates `(n, 3)` (x, y, z); outside counts as background."""
    flat, weight = torch.zeros(1, dtype=torch.long, device=label.device), torch.ones(1, device=label.device)
    flats, weights = [flat], [weight]
    stride = label.numel()
    for axis, size in enumerate(label.shape):
        stride //= size
        centre = (coordinates[:, 2 - axis] + 1) * ((size - 1) / 2)
        low = torch.floor(centre)
        share = centre - low
        pairs = []
        for index, amount in ((low, 1 - share), (low + 1, share)):
            inside = (index >= 0) & (index < size)
            pairs.append((index.clamp(0, size - 1).long() * stride, torch.where(inside, amount, -1.0)))
        flats = [old + along for old in flats for along, _ in pairs]
        weights = [torch.where((old < 0) | (amount < 0), -1.0, old * amount) for old in weights for _, amount in pairs]
    index, amounts = torch.stack(flats), torch.stack(weights)
    absolute = torch.where(amounts < 0, 0.0, amounts)
    candidates = torch.where(
        amounts < 0, torch.zeros((), dtype=label.dtype, device=label.device), label.reshape(-1)[index]
    )
    return vote(candidates, absolute)
