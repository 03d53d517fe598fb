"""Small networks, drawn X-rays and views about the isocentre for the tests of this
folder.
"""

import torch

from trivox.networks.registry import build_volume_network
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

GRID = Grid((16, 16, 16), (20.0, 20.0, 20.0))
WINDOW = (-1024.0, 1476.0)
WATER = 0.02


def network(*, grid=GRID, awake=True, seed=0, name="xray2ct-tiny", **settings):
    """A tiny network with a mean volume; awake: what starts at zero is drawn, so that
    everything reaches the output.
    """
    torch.manual_seed(seed)
    made = build_volume_network(
        name, grid=grid, window=WINDOW, water_per_mm=WATER, **settings
    )
    made.set_mean(torch.rand(grid.shape) * 0.5)
    if awake:
        for weights in made.parameters():
            if not weights.any():
                torch.nn.init.normal_(weights, std=0.05)
    return made.eval()


def orbit(*angles, detector=(32, 32), pixel_mm=14.0, **distances):
    return Geometry.orbit(angles, detector=detector, pixel_mm=pixel_mm, **distances)


def blobs(batch, grid=GRID, seed=0):
    """Attenuation `(b, z, y, x)` of a few random lumps."""
    generator = torch.Generator().manual_seed(seed)
    middle = (torch.rand(batch, 4, 1, 1, 1, 3, generator=generator) - 0.5) * 160
    away = (grid.points() - middle).norm(dim=-1)  # (b, 4, z, y, x)
    return 0.03 * torch.exp(-((away / 50) ** 2)).amax(dim=1)


def exams(geometry, batch=1, seed=0, grid=GRID):
    """X-rays of random lumps."""
    return Xrays.of(
        Projector(geometry, grid).project(blobs(batch, grid, seed)), geometry
    )


def furthest(one, other):
    """The largest difference."""
    return float((one - other).detach().abs().max())
