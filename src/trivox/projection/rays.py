"""Rays as straight lines through the voxels of a grid: what every projection method
starts from.

A ray is driven along the axis that it crosses most voxels of, as in Joseph 1982 and
RTK; this is decided ray by ray, so that views near 45 degrees are right on both sides.
Along the other two axes its place is then linear in the number of the plane, with a
slope of at most one voxel a plane.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from trivox.errors import GeometryError, ResourceError
from trivox.projection.geometry import Geometry, Grid
from trivox.uploads import made_once
from trivox.volumes.volume import Shape

PAD = (1, 2)
"""Empty voxels before and after each axis: whatever lies outside the grid is read
there, so that no ray needs a test.
"""
SAMPLES = 1 << 16
"""Of all rays together in one go: what a core's cache holds."""
HOST = torch.device("cpu")
TILE = 16
"""Rows and columns of pixels that are worked on together: their rays meet the same
voxels in the same planes.
"""


@dataclass(frozen=True, eq=False)
class Rays(ABC):
    """Rays `(n,)` as a rule for reading voxels takes them; voxels are counted in the
    padded grid.

    planes: number along the driven axis; first, slope `(2, n)`: voxel along the other
    two axes in plane 0, and its change a plane; step `(n,)`: mm between planes along
    the ray.
    """

    planes: int
    first: Tensor
    slope: Tensor
    step: Tensor

    def places(self) -> Tensor:
        """Voxel along the other two axes in every plane, `(2, n, planes)`."""
        plane = _planes(self.planes, self.first.dtype, self.first.device)
        return torch.addcmul(self.first[..., None], self.slope[..., None], plane)

    @abstractmethod
    def inside(self, places: Tensor) -> Tensor:
        """Places along the other two axes `(2, n, planes)`, moved in place to voxels
        that may be read.
        """

    @abstractmethod
    def flat(self, voxels: Tensor) -> Tensor:
        """Flat voxels `(n, planes)` of those along the other two axes, `(2, n, planes)`
        int32, which are lost.
        """

    @abstractmethod
    def corners(self, first: Tensor, beyond: Tensor) -> "Taps":
        """The four voxels about each place: flat voxels `(n, planes)` of the first ones,
        and how far beyond them the places are along the other two axes, `(2, n, planes)`
        in voxels, which are lost.
        """


@made_once(256)
def _planes(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.arange(count, dtype=dtype, device=device)


@dataclass(frozen=True, eq=False)
class Pencil(Rays):
    """Rays that share the axis that they are driven along.

    which: their places in the images `(v, rows, columns)`, flattened; within `(2, n)`:
    first plane in which a ray is inside the grid, and the one after the last; last:
    highest voxel of the other two axes that may be read; start, strides: flat voxel of
    plane 0, and distances of neighbours along the driven axis and the other two.
    """

    which: Tensor
    within: Tensor
    last: tuple[int, int]
    start: int
    strides: tuple[int, int, int]

    def __len__(self) -> int:
        return len(self.which)

    def parts(self) -> Iterator["Pencil"]:
        """The rays in groups to work on at once, each with the planes in which one of
        them is inside the grid.
        """
        count = max(1, SAMPLES // self.planes)
        for at in range(0, len(self), count):
            rays = slice(at, at + count)
            start = int(self.within[0, rays].min())
            stop = int(self.within[1, rays].max())
            slope = self.slope[:, rays]
            yield Pencil(
                which=self.which[rays],
                planes=stop - start,
                within=self.within[:, rays] - start,
                first=self.first[:, rays] + slope * start,
                slope=slope,
                last=self.last,
                step=self.step[rays],
                start=self.start + start * self.strides[0],
                strides=self.strides,
            )

    def inside(self, places: Tensor) -> Tensor:
        """See `Rays`."""
        for along, last in zip(places, self.last, strict=True):
            along.clamp_(0, last)
        return places

    def flat(self, voxels: Tensor) -> Tensor:
        """See `Rays`."""
        p, q = voxels
        flat = p.mul_(self.strides[1]).add_(q.mul_(self.strides[2]))
        voxels_of_planes: Tensor = flat.add_(self.plane_voxels())
        return voxels_of_planes

    def plane_voxels(self) -> Tensor:
        """Flat voxel where each plane begins, `(planes,)` int32."""
        plane = torch.arange(self.planes, dtype=torch.int32, device=self.first.device)
        return plane * self.strides[0] + self.start

    def corners(self, first: Tensor, beyond: Tensor) -> "Taps":
        """See `Rays`."""
        _, stride_p, stride_q = self.strides
        p, q = beyond
        both = p * q
        p_only = p.sub_(both)
        neither = (1 - q).sub_(p_only)
        q_only = q.sub_(both)
        return [
            (first, neither),
            (first + stride_q, q_only),
            (first + stride_p, p_only),
            (first + (stride_p + stride_q), both),
        ]


Taps = list[tuple[Tensor, Tensor]]
"""Flat padded voxels `(n, planes)` int32 and their weights: what a ray reads at every
plane, in units of its step. On a GPU several may come as one, `(n, k * planes)`.
"""
Rule = Callable[[Rays], Taps]
"""How a method reads the voxels about a ray."""


def padded_shape(grid: Grid) -> Shape:
    """Shape `(z, y, x)` of the grid with its empty border."""
    z, y, x = (size + sum(PAD) for size in grid.shape)
    return z, y, x


@made_once(8)
def inner_voxels(grid: Grid, device: torch.device = HOST) -> Tensor:
    """Flat voxel of the grid for each flat voxel of the padded one, int32; -1 in the
    border. Not to be changed: made once.
    """
    voxels = torch.full(padded_shape(grid), -1, dtype=torch.int32, device=device)
    inside = (slice(PAD[0], -PAD[1]),) * 3
    count = math.prod(grid.shape)
    index = torch.arange(count, dtype=torch.int32, device=device)
    voxels[inside] = index.view(grid.shape)
    return voxels.flatten()


def pencils(geometry: Geometry, grid: Grid, *, dtype: torch.dtype) -> list[Pencil]:
    """The rays of views `(v,)` that meet the grid, by driven axis, on the host; places
    are computed in float64 and kept in `dtype`. Made once for a geometry.

    Raises `GeometryError` if the grid reaches behind a source.
    """
    what = ("pencils", grid, dtype)
    return geometry.remember(what, lambda: _pencils(geometry, grid, dtype))


def _pencils(geometry: Geometry, grid: Grid, dtype: torch.dtype) -> list[Pencil]:
    geometry = geometry.to(HOST).to(torch.float64)
    _check_in_front(geometry, grid)
    order = _tiles((geometry.views, *geometry.detector))
    source = geometry.source[:, None, None]
    direction = (geometry.pixel_points() - source).flatten(0, 2)[order]  # (n, 3)
    origin = source.expand(-1, *geometry.detector, -1).flatten(0, 2)[order]
    length = direction.norm(dim=-1)
    # from mm to voxels of the padded grid, all as x, y, z
    spacing = _float64(grid.spacing[::-1])
    middle = (_float64(grid.shape[::-1]) - 1) / 2
    origin = (origin - _float64(grid.centre_mm)) / spacing + middle + PAD[0]
    run = direction / spacing
    driven = run.abs().argmax(dim=-1)
    made: list[Pencil] = []
    for axis in range(3):
        some = driven == axis
        rays = _pencil(
            axis, order[some], origin[some], run[some], length[some], grid, dtype
        )
        if len(rays):
            made.append(rays)
    return made


def follow(geometry: Geometry, grid: Grid) -> None:
    """Follow the rays of a geometry now, so that its projectors find them. Raises
    `GeometryError` if the grid reaches behind a source.
    """
    for exam in geometry.exams():
        pencils(exam, grid, dtype=torch.float32)


def require_indices(entries: int) -> None:
    """Raise `ResourceError` for a matrix of more entries than indices can count."""
    if entries >= 2**31:
        raise ResourceError(
            "the system matrix would have more than 2^31 entries; "
            "use method 'joseph' or 'siddon'"
        )


def _float64(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _pencil(
    axis: int,
    which: Tensor,
    origin: Tensor,
    run: Tensor,
    length: Tensor,
    grid: Grid,
    dtype: torch.dtype,
) -> Pencil:
    """Rays driven along `axis` of (x, y, z), without those that miss the grid;
    `origin`, `run` `(n, 3)` in voxels.
    """
    others = [other for other in (2, 1, 0) if other != axis]
    planes = grid.shape[2 - axis]
    last = [grid.shape[2 - other] + PAD[0] for other in others]
    slope = (run[:, others] / run[:, axis, None]).T
    first = origin[:, others].T + slope * (PAD[0] - origin[:, axis])
    within = _planes_within(first, slope, last, planes)
    meets = within[0] < within[1]
    _, rows, columns = padded_shape(grid)
    strides = (1, columns, rows * columns)
    return Pencil(
        which=which[meets],
        planes=planes,
        within=within[:, meets],
        first=first[:, meets].to(dtype),
        slope=slope[:, meets].to(dtype),
        last=(last[0], last[1]),
        step=(length / run[:, axis].abs())[meets].to(dtype),
        start=PAD[0] * strides[axis],
        strides=(strides[axis], strides[others[0]], strides[others[1]]),
    )


def _planes_within(
    first: Tensor, slope: Tensor, last: list[int], planes: int
) -> Tensor:
    """First plane, and the one after the last, in which a ray is less than a voxel from
    the voxels of the grid, `(2, n)`.
    """
    # parallel to the borders: it crosses them far away
    slope = torch.where(slope.abs() < 1e-9, 1e-9, slope)
    low = PAD[0] - 1
    high = torch.tensor(last)[:, None]
    crossings = torch.stack(((low - first) / slope, (high - first) / slope))
    enters = crossings.amin(dim=0).amax(dim=0)
    leaves = crossings.amax(dim=0).amin(dim=0)
    planes_within = torch.stack((enters.floor() + 1, leaves.ceil()))
    return planes_within.clamp(0, planes).long()


def _tiles(images: tuple[int, int, int]) -> Tensor:
    """Flat pixels of images `(v, rows, columns)`, tile by tile."""
    flat = torch.arange(math.prod(images)).view(images)
    tiles: list[Tensor] = []
    for rows in flat.split(TILE, dim=1):
        tiles += [tile.flatten(1) for tile in rows.split(TILE, dim=2)]
    return torch.cat(tiles, dim=1).flatten()


def _check_in_front(geometry: Geometry, grid: Grid) -> None:
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=3)))
    half = _float64(grid.extent_mm[::-1]) / 2
    corners = signs * half + _float64(grid.centre_mm)
    _, depth = geometry.project_points(corners)
    behind = (depth <= 0).any(dim=-1)
    if bool(behind.any()):
        view = int(behind.nonzero()[0])
        raise GeometryError(
            f"view {view}: the volume reaches behind the X-ray source, "
            f"{float(geometry.sod[view]):g} mm from the isocentre; "
            "crop the volume or move the source away"
        )
