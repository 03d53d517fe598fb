"""X-ray images of a batch of exams with the geometry that they were taken in: what
reconstruction networks are given.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.rays import follow
from trivox.uploads import sent

SCALES = 4
"""Of the detector, each with half the pixels along an edge of the one before, at which
a network looks at X-rays.
"""
LARGEST = 64
"""Voxels along an axis of the grid on which the prior is computed; finer grids
interpolate it.
"""
COARSER = 1.25
"""How much larger than a voxel a detector's pixel may become, at the isocentre, when
pixels are joined.
"""


@dataclass(frozen=True, eq=False)
class Xrays:
    """Line integrals of attenuation and where they were taken; the geometry stays on the
    host, images and presence lie where the network does.

    images: `(b, v, rows, columns)` float32, dimensionless (the logarithm of the
    attenuation; never scaled by an image's own range); geometry: `(v,)` shared by all
    exams, or `(b, v)`; present: `(b, v)` whether a view is there; the image of an
    absent one is zero and means nothing.
    """

    images: Tensor
    geometry: Geometry
    present: Tensor

    @classmethod
    def of(cls, images: Tensor, geometry: Geometry) -> "Xrays":
        """All views are present."""
        present = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
        return cls(images, geometry, present)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> "Xrays":
        return Xrays(self.images[part], self.geometry.exam(part), self.present[part])

    @property
    def views(self) -> int:
        """Number of views, present or not; may be 0."""
        return int(self.images.shape[1])

    def select(self, views: Sequence[int] | Tensor) -> "Xrays":
        """Some of the views of every exam, in that order."""
        chosen = torch.as_tensor(views, dtype=torch.long)
        there = sent(chosen, self.images.device)
        return Xrays(
            self.images[:, there],
            self.geometry.select(chosen),
            self.present[:, there],
        )

    def without(self, dropped: Tensor) -> "Xrays":
        """With the views in the mask `(b, v)` absent."""
        present = self.present & ~dropped
        return Xrays(self.images * present[:, :, None, None], self.geometry, present)

    def to(self, device: torch.device) -> "Xrays":
        """Images and presence on another device."""
        images = sent(self.images, device)
        return Xrays(images, self.geometry, sent(self.present, device))


# -- detail ----------------------------------------------------------------------------
def joining(geometry: Geometry, grid: Grid) -> int:
    """How many pixels along an edge may become one: a power of two, as long as they show
    no less than the voxels of `grid` can.
    """
    pixels = geometry.pixel_mm.amax(-1) * geometry.sod / geometry.sdd
    at_isocentre = float(pixels.max())
    factor = 1
    while at_isocentre * factor * 2 <= COARSER * min(grid.spacing):
        if any(edge % (factor * 2) for edge in geometry.detector):
            break
        factor *= 2
    return factor


def joined(xrays: Xrays, grid: Grid) -> Xrays:
    """The X-rays with pixels joined as long as they show no less than the voxels of
    `grid` can.
    """
    factor = joining(xrays.geometry, grid)
    if factor == 1:
        return xrays
    images = F.avg_pool2d(xrays.images, factor)
    return Xrays(images, xrays.geometry.binned(factor), xrays.present)


def prior_grid(grid: Grid) -> Grid:
    """The grid on which the prior of a volume on `grid` is computed, of at most
    `LARGEST` voxels an axis.
    """
    factor = max(1, max(grid.shape) // LARGEST)
    z, y, x = grid.shape
    return grid.resized((z // factor, y // factor, x // factor))


def _products(geometry: Geometry, grid: Grid) -> Iterator[tuple[Geometry, Grid]]:
    """What is projected where a network makes a volume on `grid` of views, at least one:
    for the loss, for data consistency, and for the prior.
    """
    yield geometry, grid
    for of_network in (grid, prior_grid(grid)):
        yield geometry.binned(joining(geometry, of_network)), of_network


def follow_ahead(geometry: Geometry, grid: Grid) -> None:
    """Compute now, and keep with the geometry, what of it a network will need that makes
    a volume on `grid` of its views.
    """
    if not geometry.views:
        return
    for of_network, voxels in _products(geometry, grid):
        follow(of_network, voxels)
    for scale in range(SCALES):
        if not any(edge % 2**scale for edge in geometry.detector):
            geometry.binned(2**scale).rays()
