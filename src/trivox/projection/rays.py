"""Rays as straight lines through the voxels of a grid: what every projection method starts from.

A ray is driven along the axis that it crosses most voxels of, as in Joseph 1982 and RTK; this is decided ray by ray, so that
views near 45 degrees are right on both sides. Along the other two axes its place is then linear in the number of the plane,
with a slope of at most one voxel a plane.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from trivox.errors import GeometryError
from trivox.projection.geometry import Geometry, Grid
from trivox.volumes import Shape

PAD = (1, 2)
"""Empty voxels before and after each axis: whatever lies outside the grid is read there, so that no ray needs a test."""
CPU_SAMPLES, GPU_SAMPLES = 1 << 16, 1 << 23
"""Samples of all rays together in one go: on a CPU what a core's cache holds, on a GPU enough to keep it busy."""


@dataclass(frozen=True, eq=False)
class Pencil:
    """Rays `(n,)` that share the axis that they are driven along; voxels are counted in the padded grid.

    which: their places in the images `(v, rows, columns)`, flattened; planes: number along the driven axis; first, slope
    `(2, n)`: voxel along the other two axes in the first plane, and its change a plane; last: highest voxel of those axes
    that may be read; step `(n,)`: mm between planes along the ray; start, strides: flat voxel of the first plane, and
    distances of neighbours along the driven axis and the other two.
    """

    which: Tensor
    planes: int
    first: Tensor
    slope: Tensor
    last: tuple[int, int]
    step: Tensor
    start: int
    strides: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.which)

    def parts(self) -> Iterator["Pencil"]:
        """The rays in groups to work on at once."""
        many = max(1, (CPU_SAMPLES if self.which.device.type == "cpu" else GPU_SAMPLES) // self.planes)
        for at in range(0, len(self), many):
            some = slice(at, at + many)
            first, slope = self.first[:, some], self.slope[:, some]
            yield replace(self, which=self.which[some], first=first, slope=slope, step=self.step[some])

    def places(self) -> Tensor:
        """Voxel along the other two axes in every plane, `(2, n, planes)`."""
        plane = torch.arange(self.planes, dtype=self.first.dtype, device=self.first.device)
        return torch.addcmul(self.first[..., None], self.slope[..., None], plane)

    def plane_voxels(self) -> Tensor:
        """Flat voxel where each plane begins, `(planes,)` int32."""
        plane = torch.arange(self.planes, dtype=torch.int32, device=self.first.device)
        return plane * self.strides[0] + self.start


Taps = list[tuple[Tensor, Tensor]]
"""Flat padded voxels `(n, planes)` int32 and their weights: what a ray reads at every plane, in units of its step."""
Rule = Callable[[Pencil], Taps]
"""How a method reads the voxels about a ray."""


def padded_shape(grid: Grid) -> Shape:
    """Shape `(z, y, x)` of the grid with its empty border."""
    z, y, x = (size + sum(PAD) for size in grid.shape)
    return z, y, x


def pencils(geometry: Geometry, grid: Grid, *, dtype: torch.dtype, device: torch.device) -> list[Pencil]:
    """The rays of views `(v,)` that meet the grid, by driven axis; places are computed in float64 and kept in `dtype`.

    Raises `GeometryError` if the grid reaches behind a source.
    """
    geometry = geometry.to(device).to(torch.float64)
    _check_in_front(geometry, grid)
    source = geometry.source[:, None, None]
    direction = geometry.pixel_points() - source  # (v, rows, columns, 3) as x, y, z
    spacing, centre = (
        torch.tensor(v, dtype=torch.float64, device=device) for v in (grid.spacing[::-1], grid.centre_mm)
    )
    middle = (torch.tensor(grid.shape[::-1], dtype=torch.float64, device=device) - 1) / 2
    origin = ((source - centre) / spacing + middle + PAD[0]).expand_as(direction).reshape(-1, 3)
    direction = direction.reshape(-1, 3)
    run = direction / spacing
    driven = run.abs().argmax(dim=-1)
    made = [
        _pencil(axis, (driven == axis).nonzero()[:, 0], origin, run, direction, grid)
        for axis in range(direction.shape[-1])
    ]
    return [replace(p, first=p.first.to(dtype), slope=p.slope.to(dtype), step=p.step.to(dtype)) for p in made if len(p)]


def _pencil(axis: int, which: Tensor, origin: Tensor, run: Tensor, direction: Tensor, grid: Grid) -> Pencil:
    """Rays `which`, driven along `axis` of (x, y, z), that meet the grid."""
    others = [other for other in (2, 1, 0) if other != axis]
    along = run[which, axis]
    slope = run[which][:, others].T / along  # (2, n)
    first = origin[which][:, others].T + slope * (PAD[0] - origin[which, axis])
    planes = grid.shape[2 - axis]
    last = [grid.shape[2 - other] + PAD[0] for other in others]
    end = first + slope * (planes - 1)
    lowest, highest = torch.minimum(first, end), torch.maximum(first, end)
    meets = ((highest > PAD[0] - 1) & (lowest < torch.tensor(last, device=first.device)[:, None])).all(dim=0)
    which, slope, first, along = which[meets], slope[:, meets], first[:, meets], along[meets]
    _, rows, columns = padded_shape(grid)
    strides = (1, columns, rows * columns)
    return Pencil(
        which, planes, first, slope, (last[0], last[1]), direction[which].norm(dim=-1) / along.abs(),
        start=PAD[0] * strides[axis], strides=(strides[axis], strides[others[0]], strides[others[1]]),
    )  # fmt: skip


def _check_in_front(geometry: Geometry, grid: Grid) -> None:
    half = [extent / 2 for extent in grid.extent_mm[::-1]]
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    corners = signs * torch.tensor(half, dtype=torch.float64) + torch.tensor(grid.centre_mm, dtype=torch.float64)
    _, depth = geometry.project_points(corners.to(geometry.sod.device))
    if bool((depth <= 0).any()):
        behind = int((depth <= 0).any(dim=-1).nonzero()[0])
        raise GeometryError(
            f"view {behind}: the volume reaches behind the X-ray source, {float(geometry.sod[behind]):g} mm from the "
            "isocentre; crop the volume or move the source away"
        )
