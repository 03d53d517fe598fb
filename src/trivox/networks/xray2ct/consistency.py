"""What is known without learning: the iterative reconstruction that a network starts
from, and the step that ends it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.projection.geometry import Grid
from trivox.projection.iterative import SirtStep, sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

LARGEST = 64
"""Voxels along an axis of the grid on which the prior is computed; finer grids
interpolate it.
"""
COARSER = 1.25
"""How much larger than a voxel a detector's pixel may become, at the isocentre, when
pixels are joined.
"""


class HounsfieldWindow(nn.Module):
    """Between normalised HU (0 to 1 within the window, not clamped) and attenuation in
    1/mm.
    """

    def __init__(self, window: tuple[float, float], water_per_mm: float) -> None:
        super().__init__()
        low, high = window
        self.low = low
        self.width = high - low
        self.water = water_per_mm

    def attenuation(self, normalised: Tensor) -> Tensor:
        """1/mm; below 0 for what is thinner than air."""
        return (1 + (self.low + normalised * self.width) / 1000) * self.water

    def normalised(self, attenuation: Tensor) -> Tensor:
        """The inverse of `attenuation`."""
        return ((attenuation / self.water - 1) * 1000 - self.low) / self.width


def joined(xrays: Xrays, grid: Grid) -> Xrays:
    """The X-rays with pixels joined as long as they show no less than the voxels of
    `grid` can.
    """
    geometry = xrays.geometry
    pixels = geometry.pixel_mm.amax(-1) * geometry.sod / geometry.sdd
    at_isocentre = float(pixels.max())
    factor = 1
    while at_isocentre * factor * 2 <= COARSER * min(grid.spacing):
        if any(edge % (factor * 2) for edge in geometry.detector):
            break
        factor *= 2
    if factor == 1:
        return xrays
    images = F.avg_pool2d(xrays.images, factor)
    return Xrays(images, geometry.binned(factor), xrays.present)


def iterative_prior(
    xrays: Xrays, projector: Projector, start: Tensor, *, iterations: int
) -> Tensor:
    """SIRT from `start`, attenuation `(b, z, y, x)` in 1/mm on the projector's grid, on
    at most `LARGEST` voxels an axis.

    What lies between the coarser voxels stays as in `start`.
    """
    grid = projector.grid
    factor = max(1, max(grid.shape) // LARGEST)
    if factor == 1:
        return sirt(xrays, projector, iterations=iterations, start=start)
    z, y, x = grid.shape
    coarse = grid.resized((z // factor, y // factor, x // factor))
    xrays = joined(xrays, coarse)
    projector = Projector(xrays.geometry, coarse)
    coarse_start = F.avg_pool3d(start, factor)
    change = (
        sirt(xrays, projector, iterations=iterations, start=coarse_start) - coarse_start
    )
    fine = F.interpolate(change[:, None], size=grid.shape, mode="trilinear")
    return start + fine[:, 0]


class DataConsistency(nn.Module):
    """Steps of SIRT towards the X-rays, `x + strength * C A^T R (b - A x)`, whose
    strengths are learnt.
    """

    def __init__(self, steps: int, *, strength: float = 0.5) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.full((steps,), strength))

    def forward(self, volume: Tensor, xrays: Xrays, projector: Projector) -> Tensor:
        """Attenuation `(b, z, y, x)` in 1/mm to the same, with gradient to volume and
        strengths.
        """
        if not len(self.strength):
            return volume
        step = SirtStep(xrays, projector)
        for strength in self.strength:
            volume = step(volume, strength)
        return volume
