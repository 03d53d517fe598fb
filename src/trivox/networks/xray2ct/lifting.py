"""From views to voxels: every voxel looks up where it appears in each X-ray, then the
views are fused into one map.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import starmap

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.networks.halves import in_type
from trivox.projection.geometry import Grid
from trivox.projection.xrays import Xrays
from trivox.uploads import constant, made_once, sent
from trivox.volumes.volume import Shape

FEW = 1 << 17
"""Voxels of all levels for which a GPU needs less time than for the start of kernels."""
FACTS = 4
"""Depth, cosine of the incidence, mean attenuation along the ray, whether the detector
sees it.
"""
DEPTH = 4.0
"""Factor on the depth, which is counted from the isocentre in units of its distance."""


Grids = tuple[Grid, ...]
Sizes = tuple[tuple[int, int], ...]
"""Channels and voxels of several levels."""


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
    shape: Shape


@torch.no_grad()
def look(xrays: Xrays, grids: Grids, *, water_per_mm: float) -> list[Sight]:
    """Where and how the voxels of several grids of one field of view appear in the
    X-rays, in fp32 also under autocast: bf16 has three digits, a detector has hundreds
    of pixels.
    """
    device = xrays.images.device
    # where nothing is computed, torch knows no autocast
    counted = device.type == "meta"
    with nullcontext() if counted else torch.autocast(device.type, enabled=False):
        return _looked(xrays, grids, water_per_mm)


def _looked(xrays: Xrays, grids: Grids, water_per_mm: float) -> list[Sight]:
    device = xrays.images.device
    geometry = xrays.geometry.to(device)
    b = len(xrays)
    points = voxels_of(grids, device)
    pixels, depth = geometry.project_points(points)  # (..., v, n, 2), (..., v, n)
    steps = tuple(2 / edge for edge in geometry.detector)
    firsts = tuple(1 / edge - 1 for edge in geometry.detector)
    step = constant(steps, device)
    first = constant(firsts, device)
    places = torch.addcmul(first, pixels, step)
    towards = points - geometry.source[..., None, :]  # (..., v, n, 3)
    distance = towards.norm(dim=-1)
    direction = towards / distance[..., None]
    chord = crossing(direction, points, grids[0])
    cosine = depth / distance
    away = depth / geometry.sod[..., None]
    away = torch.add(constant((-DEPTH,), device), away, alpha=DEPTH)
    on_detector = places.abs().amax(-1) <= 1
    in_front = depth > 0
    present = xrays.present[:, :, None]
    seen = on_detector & in_front & present
    if not geometry.batched:
        places = places.expand(b, *places.shape)
        away = away.expand(b, *away.shape)
        cosine = cosine.expand(b, *cosine.shape)
        chord = chord.expand(b, *chord.shape)
    # after exams have their own, or every look would copy them
    places = places.flip(-1)
    water = chord * water_per_mm
    mean = _integrals(xrays, places) / water.clamp(min=1.0)
    one = constant((1.0,), device).expand_as(mean)
    facts = torch.stack((away, cosine, mean, one), dim=2)
    facts = facts * seen[:, :, None]
    return _of_each_grid(grids, places, seen, facts)


def _integrals(xrays: Xrays, places: Tensor) -> Tensor:
    """What the images show at places `(b, v, n, 2)`: line integrals `(b, v, n)`."""
    images = xrays.images.flatten(0, 1)
    shown = F.grid_sample(
        images[:, None],
        _folded(places),
        padding_mode="border",
        align_corners=False,
    )
    return shown.reshape(places.shape[:3])


def _of_each_grid(
    grids: Grids, places: Tensor, seen: Tensor, facts: Tensor
) -> list[Sight]:
    """The sights of grids whose voxels follow one another."""
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


@made_once(4)
def voxels_of(grids: Grids, device: torch.device) -> Tensor:
    """Voxel centres of several grids `(n, 3)`, mm; sent once."""
    points = [grid.points().reshape(-1, 3) for grid in grids]
    return sent(torch.cat(points), device)


def _folded(places: Tensor) -> Tensor:
    """`(b, v, n, 2)` to `(b * v, 1, n, 2)`, as `grid_sample` wants it."""
    return places.flatten(0, 1)[:, None]


def crossing(direction: Tensor, points: Tensor, grid: Grid) -> Tensor:
    """Length in mm of lines with unit `direction` `(..., n, 3)` through `points` `(n,
    3)` within the grid's box, where all of these lie.
    """
    faces = _faces(grid, points.device) - points
    # a line along a face meets it at infinity
    exams_and_views = [1] * (direction.ndim - 2)
    faces = faces.unflatten(0, (2, *exams_and_views))
    one, other = faces / direction
    lower = torch.minimum(one, other)
    upper = torch.maximum(one, other)
    return upper.amin(-1) - lower.amax(-1)


def _faces(grid: Grid, device: torch.device) -> Tensor:
    """Where the grid's box begins and ends along x, y and z, `(2, 1, 3)` mm."""
    ends: list[float] = []
    for middle, size in zip(grid.centre_mm, grid.extent_mm[::-1], strict=True):
        ends.append(middle - size / 2)
        ends.append(middle + size / 2)
    faces = constant(tuple(ends), device).view(3, 2)
    return faces.T[:, None]


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
        (fused,) = lift([self], [maps], [sight])
        return torch.cat(fused, dim=1)


Fused = tuple[Tensor, Tensor, Tensor]
"""Mean, maximum and attention-weighted mean over the views that see a voxel."""


def lift(
    liftings: Sequence[ViewLifting], maps: Sequence[Tensor], sights: Sequence[Sight]
) -> list[Fused]:
    """What the voxels of several levels look up in the views: maps `(b, v, c, rows,
    columns)`, a scale for each level, to three of `(b, features, z, y, x)`.
    """
    if maps[0].shape[1] == 0:
        given = zip(liftings, maps, sights, strict=True)
        return list(starmap(_unseen, given))
    levels = _looked_up(liftings, maps, sights)
    seen = [sight.seen[:, :, None] for sight in sights]
    voxels = sum(there.shape[-1] for there in seen)
    if maps[0].device.type == "cpu" or voxels > FEW:
        fused = [fuse(*level, there) for level, there in zip(levels, seen, strict=True)]
    else:
        fused = fuse_at_once(levels, seen)
    return [
        _unfolded(each, -1, sight.shape)
        for each, sight in zip(fused, sights, strict=True)
    ]


def _unfolded(fused: Fused, axis: int, sizes: Sequence[int]) -> Fused:
    """With several axes in the place of one."""
    mean, highest, weighted = fused
    return (
        mean.unflatten(axis, sizes),
        highest.unflatten(axis, sizes),
        weighted.unflatten(axis, sizes),
    )


def _unseen(lifting: ViewLifting, maps: Tensor, sight: Sight) -> Fused:
    nothing = maps.new_zeros(len(maps), lifting.features, *sight.shape)
    return nothing, nothing, nothing


Level = tuple[Tensor, Tensor]
"""Features of voxels in each view `(b, v, c, n)`, and their scores `(b, v, 1, n)`."""


def _looked_up(
    liftings: Sequence[ViewLifting], maps: Sequence[Tensor], sights: Sequence[Sight]
) -> list[Level]:
    views = maps[0].shape[:2]
    reduced: list[Tensor] = []
    for lifting, scale in zip(liftings, maps, strict=True):
        reduced.append(lifting.reduce(scale.flatten(0, 1)))
    known: list[Tensor] = []
    # as precise as the places
    precise = in_type(reduced, torch.float32)
    for scale, sight in zip(precise, sights, strict=True):
        sampled = F.grid_sample(scale, _folded(sight.places), align_corners=False)
        facts = sight.facts.flatten(0, 1)
        known.append(torch.cat((sampled.squeeze(2), facts), dim=1))
    levels: list[Level] = []
    narrow = in_type(known, reduced[0].dtype)
    for lifting, channels in zip(liftings, narrow, strict=True):
        x = F.gelu(lifting.point(channels))
        score = lifting.score(x)
        levels.append((x.unflatten(0, views), score.unflatten(0, views)))
    return levels


def fuse(x: Tensor, score: Tensor, seen: Tensor) -> Fused:
    """Features `(b, v, c, n)`, scores and masks `(b, v, 1, n)` to three of `(b, c, n)`."""
    return _fused(x, _shares(score, seen))


def fuse_at_once(levels: Sequence[Level], seen: Sequence[Tensor]) -> list[Fused]:
    """`fuse` of several levels, with the kernels of one: channels and voxels of all in
    one axis.
    """
    features = [x for x, _ in levels]
    scores = [score for _, score in levels]
    of_voxels = _shares(
        torch.cat(scores, dim=3).squeeze(2),
        torch.cat(list(seen), dim=3).squeeze(2),
    )
    sizes = tuple((x.shape[2], x.shape[3]) for x in features)
    voxels = _voxels(sizes, scores[0].device)
    shares = [part.index_select(-1, voxels) for part in of_voxels]
    joined = torch.cat([x.flatten(2) for x in features], dim=2)
    lengths = [channels * count for channels, count in sizes]
    columns = [part.split(lengths, dim=1) for part in _fused(joined, shares)]
    return [
        _unfolded((mean, highest, weighted), 1, size)
        for size, mean, highest, weighted in zip(sizes, *columns, strict=True)
    ]


def _shares(score: Tensor, seen: Tensor) -> list[Tensor]:
    """Of views in the weighted mean and in the mean; what to add to the features of a
    view that does not see a voxel, so that they are never the highest; and which voxels
    are seen by any: `(b, v, ...)`, the last one `(b, ...)`.
    """
    there = seen.float()
    most = torch.finfo(there.dtype).max
    lowest = constant((-most,), there.device)
    hidden = torch.add(lowest, there, alpha=most)
    weights = (score + hidden).softmax(dim=1) * there
    count = there.sum(dim=1, keepdim=True).clamp(min=1)
    return [weights, there / count, hidden, there.amax(dim=1)]


def _fused(x: Tensor, shares: Sequence[Tensor]) -> Fused:
    weights, share, hidden, visible = shares
    x = x.float()
    mean = (x * share).sum(dim=1)
    highest = (x + hidden).amax(dim=1) * visible
    weighted = (x * weights).sum(dim=1)
    return mean, highest, weighted


@made_once(8)
def _voxels(sizes: Sizes, device: torch.device) -> Tensor:
    """Which voxel of all levels belongs to each channel and voxel of levels with so many
    of both.
    """
    parts: list[Tensor] = []
    start = 0
    for channels, count in sizes:
        voxels = torch.arange(start, start + count, dtype=torch.int32)
        parts.append(voxels.repeat(channels))
        start += count
    return sent(torch.cat(parts), device)
