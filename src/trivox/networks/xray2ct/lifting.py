"""From views to voxels: every voxel looks up where it appears in each X-ray, then the
views are fused into one map.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.projection.geometry import Grid
from trivox.projection.xrays import Xrays
from trivox.uploads import constant, sent

FACTS = 4
"""Depth, cosine of the incidence, mean attenuation along the ray, whether the detector
sees it.
"""


@dataclass(frozen=True, eq=False)
class Sight:
    """How the voxels of a grid appear in each view; `n = z * y * x`.

    places: `(b, v, n, 2)` in the images as `grid_sample` counts them, the same at every
    scale; seen: `(b, v, n)` whether a present view shows the voxel; facts: `(b, v,
    FACTS, n)`, 0 where not seen. All stay when world and views turn together.
    """

    places: Tensor
    seen: Tensor
    facts: Tensor
    shape: tuple[int, int, int]


@torch.no_grad()
def look(xrays: Xrays, grids: tuple[Grid, ...], *, water_per_mm: float) -> list[Sight]:
    """Where and how the voxels of several grids of one field of view appear in the
    X-rays, in fp32 also under autocast: bf16 has three digits, a detector has hundreds
    of pixels.
    """
    device = xrays.images.device
    counted = (
        device.type == "meta"
    )  # where nothing is computed, torch knows no autocast
    with nullcontext() if counted else torch.autocast(device.type, enabled=False):
        return _looked(xrays, grids, water_per_mm)


def _looked(xrays: Xrays, grids: tuple[Grid, ...], water_per_mm: float) -> list[Sight]:
    device = xrays.images.device
    geometry = xrays.geometry.to(device)
    b, v = xrays.images.shape[:2]
    points = voxels_of(grids, device)
    pixels, depth = geometry.project_points(points)  # (..., v, n, 2), (..., v, n)
    size = constant(geometry.detector, device)
    places = ((pixels + 0.5) * 2 / size - 1).flip(-1)
    towards = points - geometry.source[..., None, :]  # (..., v, n, 3)
    distance = towards.norm(dim=-1)
    chord = crossing(towards / distance[..., None], points, grids[0])
    cosine = depth / distance
    depth = depth / geometry.sod[..., None] - 1
    if not geometry.batched:
        places = places.expand(b, *places.shape)
        depth = depth.expand(b, *depth.shape)
        cosine = cosine.expand(b, *cosine.shape)
        chord = chord.expand(b, *chord.shape)
    inside = places.abs().amax(-1) <= 1
    seen = inside & (depth > -1) & xrays.present[:, :, None]
    images = xrays.images.flatten(0, 1)
    integral = F.grid_sample(
        images[:, None],
        _folded(places),
        padding_mode="border",
        align_corners=False,
    )
    water = chord * water_per_mm
    mean = integral.reshape(b, v, len(points)) / water.clamp(min=1.0)
    facts = torch.stack(
        (depth * 4, cosine, mean, torch.ones_like(mean)),
        dim=2,
    )
    facts = facts * seen[:, :, None]
    counts = [math.prod(grid.shape) for grid in grids]
    parts = zip(
        grids,
        places.split(counts, dim=2),
        seen.split(counts, dim=2),
        facts.split(counts, dim=3),
        strict=True,
    )
    return [
        Sight(there, shown, known, grid.shape) for grid, there, shown, known in parts
    ]


# what is made in inference mode may not be used in training later
@lru_cache(maxsize=4)
@torch.inference_mode(False)
def voxels_of(grids: tuple[Grid, ...], device: torch.device) -> Tensor:
    """Voxel centres of several grids `(n, 3)`, mm; sent once."""
    points = [grid.points().reshape(-1, 3) for grid in grids]
    return sent(torch.cat(points), device)


def _folded(places: Tensor) -> Tensor:
    """`(b, v, n, 2)` to `(b * v, 1, n, 2)`, as `grid_sample` wants it."""
    return places.flatten(0, 1)[:, None]


def crossing(direction: Tensor, points: Tensor, grid: Grid) -> Tensor:
    """Length in mm of lines with unit `direction` `(..., n, 3)` through `points` `(n,
    3)` within the grid's box.
    """
    z, y, x = grid.extent_mm
    half = constant((x, y, z), points.device) / 2
    centre = constant(grid.centre_mm, points.device)
    flat = direction.abs() < 1e-6
    steep = torch.where(flat, 1e-6, direction)
    one = (centre - half - points) / steep
    other = (centre + half - points) / steep
    enters = torch.minimum(one, other).amax(-1)
    leaves = torch.maximum(one, other).amin(-1)
    return (leaves - enters).clamp(min=0)


class ViewLifting(nn.Module):
    """Features of all views at the places of each voxel, fused by what does not depend
    on their order or number.

    A voxel's features in a view, with the facts of its sight, pass a small layer; then
    mean, maximum and attention-weighted mean over the views that see it. Zero where
    none does.
    """

    def __init__(self, inputs: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.reduce = nn.Conv2d(inputs, features, 1)
        self.point = nn.Conv1d(features + FACTS, features, 1)
        self.score = nn.Conv1d(features, 1, 1)

    @property
    def outputs(self) -> int:
        """Channels of the fused map."""
        return 3 * self.features

    def forward(self, maps: Tensor, sight: Sight) -> Tensor:
        """Maps `(b, v, c, rows, columns)` of one scale to `(b, outputs, z, y, x)`."""
        b, v = maps.shape[:2]
        if v == 0:
            return maps.new_zeros(b, self.outputs, *sight.shape)
        reduced = self.reduce(maps.flatten(0, 1))
        sampled = F.grid_sample(
            reduced.float(),  # as precise as the places
            _folded(sight.places),
            align_corners=False,
        )
        features = sampled[:, :, 0].to(reduced.dtype)  # (b * v, features, n)
        facts = sight.facts.flatten(0, 1)
        together = torch.cat(
            (features, facts.to(features.dtype)),
            dim=1,
        )
        x = F.gelu(self.point(together))
        score = self.score(x)
        fused = self.fuse(
            x.unflatten(0, (b, v)),
            score.reshape(b, v, 1, -1),
            sight.seen[:, :, None],
        )
        return fused.reshape(b, -1, *sight.shape)

    def fuse(self, x: Tensor, score: Tensor, seen: Tensor) -> Tensor:
        """Features `(b, v, c, n)`, scores and masks `(b, v, 1, n)` to `(b, 3 c, n)`."""
        least = torch.finfo(x.dtype).min
        count = seen.sum(dim=1).clamp(min=1)
        x = x * seen
        highest = torch.where(seen, x, least).amax(dim=1)
        weights = torch.where(seen, score, least)
        mean = x.sum(dim=1) / count
        weighted = x * weights.softmax(dim=1)
        parts = (
            mean,
            highest * seen.any(dim=1),
            weighted.sum(dim=1),
        )
        return torch.cat(parts, dim=1)
