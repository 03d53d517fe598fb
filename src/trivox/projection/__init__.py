"""X-ray geometry, the projector, and classical reconstruction."""

from trivox.projection.attenuation import WATER_PER_MM, attenuation_of, hounsfield_of
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.noise import add_noise
from trivox.projection.projector import Projector, backproject, project
from trivox.projection.xrays import Xrays

__all__ = [
    "WATER_PER_MM", "Geometry", "Grid", "Projector", "Xrays", "add_noise", "attenuation_of", "backproject", "hounsfield_of",
    "project",
]  # fmt: skip
