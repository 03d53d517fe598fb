"""What is known without learning: the iterative reconstruction that a network starts
from, and the step that ends it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.projection.iterative import SirtStep, sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays, joined, prior_grid


def iterative_prior(
    xrays: Xrays, projector: Projector, start: Tensor, *, iterations: int
) -> Tensor:
    """SIRT from `start`, attenuation `(b, z, y, x)` in 1/mm on the projector's grid, on
    at most `LARGEST` voxels an axis.

    What lies between the coarser voxels stays as in `start`.
    """
    grid = projector.grid
    coarse = prior_grid(grid)
    if coarse.shape == grid.shape:
        return sirt(xrays, projector, iterations=iterations, start=start)
    factor = grid.shape[0] // coarse.shape[0]
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
