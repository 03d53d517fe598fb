"""From views to voxels: every voxel looks up where it appears in each X-ray, then the
views are fused into one map.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.projection.geometry import Grid
from trivox.projection.xrays import Xrays

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
def look(xrays: Xrays, grid: Grid, *, water_per_mm: float) -> Sight:
    """Where and how the voxels of `grid` appear in the X-rays."""
    geometry = xrays.geometry
    b, v = xrays.images.shape[:2]
    points = grid.points(device=xrays.images.device).reshape(-1, 3)
    pixels, depth = geometry.project_points(points)  # (..., v, n, 2), (..., v, n)
    size = torch.tensor(geometry.detector, dtype=pixels.dtype, device=pixels.device)
    places = ((pixels + 0.5) * 2 / size - 1).flip(-1)
    towards = points - geometry.source[..., None, :]  # (..., v, n, 3)
    distance = towards.norm(dim=-1)
    chord = crossing(towards / distance[..., None], points, grid)
    cosine = depth / distance
    depth = depth / geometry.sod[..., None] - 1
    if not geometry.batched:
        places, depth, cosine, chord = (
            x.expand(b, *x.shape) for x in (places, depth, cosine, chord)
        )
    inside = places.abs().amax(-1) <= 1
    seen = inside & (depth > -1) & xrays.present[:, :, None]
    brightness = F.grid_sample(
        xrays.images.flatten(0, 1)[:, None],
        places.flatten(0, 1)[:, None],
        padding_mode="border",
        align_corners=False,
    ).reshape(b, v, len(points))
    mean = brightness / (chord * water_per_mm).clamp(min=1.0)
    facts = torch.stack((depth * 4, cosine, mean, torch.ones_like(mean)), dim=2)
    return Sight(places, seen, facts * seen[:, :, None], grid.shape)


def crossing(direction: Tensor, points: Tensor, grid: Grid) -> Tensor:
    """Length in mm of lines with unit `direction` `(..., n, 3)` through `points` `(n,
    3)` within the grid's box.
    """
    z, y, x = grid.extent_mm
    half = torch.tensor((x, y, z), dtype=points.dtype, device=points.device) / 2
    centre = torch.tensor(grid.centre_mm, dtype=points.dtype, device=points.device)
    level = direction.abs() < 1e-6
    steep = torch.where(level, torch.full_like(direction, 1e-6), direction)
    one, other = ((centre + side * half - points) / steep for side in (-1, 1))
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
        places = sight.places.flatten(0, 1)[:, None].to(reduced.dtype)
        sampled = F.grid_sample(reduced, places, align_corners=False)
        features = sampled[:, :, 0]  # (b * v, features, n)
        facts = sight.facts.flatten(0, 1).to(features.dtype)
        x = F.gelu(self.point(torch.cat((features, facts), dim=1)))
        score = self.score(x).reshape(b, v, 1, -1)
        fused = self.fuse(x.unflatten(0, (b, v)), score, sight.seen[:, :, None])
        return fused.reshape(b, -1, *sight.shape)

    def fuse(self, x: Tensor, score: Tensor, seen: Tensor) -> Tensor:
        """Features `(b, v, c, n)`, scores and masks `(b, v, 1, n)` to `(b, 3 c, n)`."""
        least = torch.finfo(x.dtype).min
        count = seen.sum(dim=1).clamp(min=1)
        x = x * seen
        highest = x.masked_fill(~seen, least).amax(dim=1) * seen.any(dim=1)
        weights = score.masked_fill(~seen, least).softmax(dim=1)
        mean = x.sum(dim=1) / count
        weighted = (x * weights).sum(dim=1)
        return torch.cat((mean, highest, weighted), dim=1)
