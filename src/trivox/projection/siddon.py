"""Siddon's rule: the exact length of the ray in every voxel that it crosses.

Siddon, Fast calculation of the exact radiological path for a three-dimensional CT
array, Med Phys 12(2), 1985. No crossings are sorted: between two planes of the driven
axis a ray enters a new voxel at most once along each other axis.
"""

import torch
from torch import Tensor

from trivox.projection.rays import Rays, Taps


def siddon(rays: Rays) -> Taps:
    """Three voxels a layer: before the first crossing, between the two, and after the
    second; weights sum to 1.
    """
    slope = rays.slope[..., None]
    enters = rays.places().add_(0.5 - slope / 2)  # voxel n reaches from n to n + 1
    from_voxel = enters.floor()
    to_voxel = (enters + slope).floor()
    border = torch.maximum(from_voxel, to_voxel)
    crossing = ((border - enters) / slope).clamp_(0, 1)
    crossing = torch.where(from_voxel == to_voxel, 1.0, crossing)
    first = crossing.amin(dim=0)
    second = crossing.amax(dim=0)
    # along the axis crossed first it has moved on
    between = torch.where(crossing <= first, to_voxel, from_voxel)
    return [
        (_flat(rays, from_voxel), first),
        (_flat(rays, between), second - first),
        (_flat(rays, to_voxel), 1 - second),
    ]


def _flat(rays: Rays, voxels: Tensor) -> Tensor:
    """Flat voxel of pairs along the other two axes, `(2, n, planes)`, which are lost;
    outside the grid, one of its empty border.
    """
    return rays.flat(rays.inside(voxels).int())
