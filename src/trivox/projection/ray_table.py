"""Products with the projection matrix on a GPU: all rays of all views at once, with few
kernels and nothing that the program has to wait for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.rays import (
    Pencil,
    Rays,
    Rule,
    Taps,
    inner_voxels,
    pencils,
    require_indices,
)
from trivox.uploads import constant, made_once, sent_together

SAMPLES = 1 << 21
"""Of all rays together in one go: enough to keep a GPU busy, and a few hundred MB."""


@dataclass(frozen=True, eq=False)
class MixedRays(Rays):
    """Rays that are driven along any axis.

    facts: `(n, 8 + planes)` int32, see `_kinds`.
    """

    facts: Tensor

    def inside(self, places: Tensor) -> Tensor:
        """See `Rays`."""
        first = constant((0.0,), places.device)
        last = self.facts[:, :2].T[..., None]
        return places.clamp_(first, last)

    def flat(self, voxels: Tensor) -> Tensor:
        """See `Rays`."""
        p, q = voxels
        flat = torch.addcmul(self.facts[:, 8:], p, self.facts[:, 2:3])
        return flat.addcmul_(q, self.facts[:, 3:4])

    def corners(self, first: Tensor, beyond: Tensor) -> Taps:
        """See `Rays`."""
        p, q = torch.stack((1 - beyond, beyond), dim=2)  # (n, 2, planes)
        weights = p[:, :, None] * q[:, None]
        away = self.facts[:, 4:8].view(-1, 2, 2, 1)
        places = first[:, None, None] + away
        return [(places.flatten(1), weights.flatten(1))]


@dataclass(frozen=True, eq=False)
class Towards:
    """Steps `x + C A^T R (b - A x)` of SIRT: the voxels of the entries of A, its
    weights `(n, entries)`, and those of A^T with R and C, `(b | 1, n, entries)`.
    """

    places: Tensor
    weights: Tensor
    back: Tensor

    def __call__(self, volumes: Tensor, images: Tensor) -> None:
        """Bring volumes `(b, z, y, x)` a step closer to images, in place."""
        flat = volumes.view(len(volumes), -1)
        values = flat.index_select(1, self.places).view(len(flat), *self.weights.shape)
        misfit = torch.baddbmm(
            images.flatten(1).T[..., None],
            values.transpose(0, 1),
            self.weights[..., None],
            alpha=-1,
            out=values.new_empty(len(self.weights), len(flat), 1),
        )
        change = self.back * misfit.transpose(0, 1)
        flat.index_add_(1, self.places, change.flatten(1))


class RayTable:
    """A projection of volumes `(b, z, y, x)` to `(b, v, rows, columns)` and its adjoint
    on a GPU. The rays are followed on the host, in float64, and sent.

    keep: hold the matrix from the first product on, 8 bytes an entry in float32, every
    pixel with as many entries; otherwise they are computed anew in each product.
    """

    def __init__(
        self,
        geometry: Geometry,
        grid: Grid,
        rule: Rule,
        *,
        dtype: torch.dtype,
        device: torch.device,
        keep: bool,
    ) -> None:
        self.grid = grid
        self.rule = rule
        self.images = (geometry.views, *geometry.detector)
        pixels = math.prod(self.images)
        if keep:
            require_indices(pixels * max(grid.shape) * 4)
        rays = pencils(geometry, grid, dtype=dtype)
        lines, pencil = _lines(rays, pixels, dtype)
        parts = (lines, pencil, _kinds(rays, max(grid.shape)))
        self.lines, self.pencil, self.kinds = sent_together(parts, device)
        self.inner, self.inside = _inner(grid, dtype, device)
        count = max(1, SAMPLES // max(grid.shape))
        starts = range(0, max(1, pixels), count)
        self.parts = [slice(start, min(pixels, start + count)) for start in starts]
        self.keep = keep
        self.kept: dict[int, tuple[Tensor, Tensor]] = {}

    def forward(self, volumes: Tensor) -> Tensor:
        """Line integrals of `(b, z, y, x)`."""
        flat = volumes.flatten(1)
        images: list[Tensor] = []
        for rays in self.parts:
            places, weights = self._entries(rays)
            values = flat.index_select(1, places.flatten())
            products = values.view(len(flat), *weights.shape).mul_(weights)
            images.append(products.sum(dim=-1))
        return self._as_images(images)

    def lengths(self) -> Tensor:
        """Line integrals of ones, `(1, v, rows, columns)`."""
        weights = [self._entries(rays)[1] for rays in self.parts]
        return self._as_images([part.sum(dim=-1)[None] for part in weights])

    def _as_images(self, parts: Sequence[Tensor]) -> Tensor:
        """Pixels `(b, n)` of all parts as `(b, v, rows, columns)`."""
        whole = parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=1)
        return whole.view(len(whole), *self.images)

    def adjoint(self, images: Tensor) -> Tensor:
        """Back-projection of `(b, v, rows, columns)`."""
        flat = images.flatten(1)
        volumes = images.new_zeros(len(images), math.prod(self.grid.shape))
        for rays in self.parts:
            places, weights = self._entries(rays)
            values = flat[:, rays, None] * weights
            volumes.index_add_(1, places.flatten(), values.flatten(1))
        return volumes.view(len(images), *self.grid.shape)

    def towards(self, rows: Tensor, columns: Tensor) -> "Towards | None":
        """Steps of SIRT with weights `(b | 1, v, rows, columns)` of the pixels and `(b |
        1, z, y, x)` of the voxels; None for a matrix that is not kept, or is large.
        """
        exams = max(len(rows), len(columns))
        if not self.keep or len(self.parts) > 1:
            return None
        places, weights = self._entries(self.parts[0])
        if exams * weights.numel() > 4 * SAMPLES:
            return None
        of_voxels = columns.flatten(1).index_select(1, places.flatten())
        back = of_voxels.view(-1, *weights.shape) * weights
        return Towards(places.flatten(), weights, back * rows.flatten(1)[..., None])

    def _entries(self, rays: slice) -> tuple[Tensor, Tensor]:
        """Flat voxels `(n, entries)` int32 of some rays, and their weights in mm."""
        if rays.start in self.kept:
            return self.kept[rays.start]
        with torch.inference_mode(False):
            entries = self._computed(rays)
        if self.keep:
            self.kept[rays.start] = entries
        return entries

    def _computed(self, rays: slice) -> tuple[Tensor, Tensor]:
        lines = self.lines[:, rays]
        mixed = MixedRays(
            planes=max(self.grid.shape),
            first=lines[:2],
            slope=lines[2:4],
            step=lines[4],
            facts=self.kinds.index_select(0, self.pencil[rays]),
        )
        padded, weights = _joined(self.rule(mixed))
        flat = padded.flatten()
        inside = self.inside.index_select(0, flat).view(padded.shape)
        weights.mul_(mixed.step[:, None]).mul_(inside)
        return self.inner.index_select(0, flat).view(padded.shape), weights


@made_once(8)
def _inner(
    grid: Grid, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Flat voxel of the grid for each flat voxel of the padded one, int32, and 1; any
    voxel and 0 in the border, which is empty.
    """
    voxels = inner_voxels(grid, device)
    return voxels.clamp(min=0), (voxels >= 0).to(dtype)


def _joined(taps: Taps) -> tuple[Tensor, Tensor]:
    """Voxels and weights of all taps, `(n, taps * planes)`."""
    if len(taps) == 1:
        return taps[0]
    voxels, weights = zip(*taps, strict=True)
    return torch.cat(voxels, dim=-1), torch.cat(weights, dim=-1)


def _lines(
    rays: Sequence[Pencil], pixels: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Each pixel's ray, `(5, pixels)`: first and slope along two axes, step; and the
    number of its pencil, int32. Rays that miss the grid have step 0 and stay in the
    corner of the border.
    """
    lines = torch.zeros(5, pixels, dtype=dtype)
    numbers = torch.zeros(pixels, dtype=torch.int32)
    for number, pencil in enumerate(rays):
        lines[:2, pencil.which] = pencil.first
        lines[2:4, pencil.which] = pencil.slope
        lines[4, pencil.which] = pencil.step
        numbers[pencil.which] = number
    return lines, numbers


def _kinds(rays: Sequence[Pencil], planes: int) -> Tensor:
    """What the rays of each pencil share, `(pencils, 8 + planes)` int32: last voxel along
    two axes, strides along them, how far the four voxels about a place are from the
    first, and where each plane begins; behind a pencil's last one lies an empty one.
    """
    kinds: list[Tensor] = []
    for pencil in rays:
        _, p, q = pencil.strides
        shared = torch.tensor([*pencil.last, p, q, 0, q, p, p + q], dtype=torch.int32)
        plane = torch.arange(planes, dtype=torch.int32).clamp(max=pencil.planes)
        kinds.append(torch.cat((shared, plane * pencil.strides[0] + pencil.start)))
    if not kinds:
        return torch.zeros(1, 8 + planes, dtype=torch.int32)
    return torch.stack(kinds)
