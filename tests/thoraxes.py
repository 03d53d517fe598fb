"""Drawn chests and X-rays of them, for tests of reconstruction."""

from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
import torch
from PIL import Image

from trivox.datasets.exams import Exam
from trivox.datasets.phantoms.thorax_anatomy import draw_thorax
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays


def chest(grid: Grid, *, seed: int = 0) -> np.ndarray:
    """HU `(z, y, x)` of a drawn chest."""
    return draw_thorax(np.random.default_rng(seed), grid).hounsfield.copy()


@dataclass(frozen=True, eq=False)
class ChestExam(Exam):
    """An exam whose views can be exchanged."""

    def with_views(
        self, images: torch.Tensor, present: list[bool], *, kind: str = "line integrals"
    ) -> "ChestExam":
        xrays = Xrays(images, self.xrays.geometry, torch.tensor([present]))
        return replace(self, xrays=xrays, kind=kind)


def exam_of_chest(
    grid: Grid,
    *,
    seed: int = 0,
    isocentre: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> tuple[np.ndarray, ChestExam]:
    """HU of a drawn chest and its two views, rendered from the very same voxels."""
    hounsfield = chest(grid, seed=seed)
    geometry = Geometry.orbit([0, 90], detector=(32, 32), pixel_mm=18.0)
    attenuation = attenuation_of(torch.from_numpy(hounsfield))
    images = Projector(geometry, grid).project(attenuation[None])
    xrays = Xrays.of(images, geometry)
    return hounsfield, ChestExam(xrays, isocentre, "line integrals", 0.02)


def picture(png: bytes) -> np.ndarray:
    """A PNG as `(rows, columns, 3)`."""
    with Image.open(BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"))
