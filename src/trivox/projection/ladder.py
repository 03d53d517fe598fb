"""The ladder: what a reconstruction network has to beat, from a constant to total
variation, each a row of every report.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from trivox.errors import DataError
from trivox.projection.attenuation import attenuation_of, hounsfield_of
from trivox.projection.classical import (
    backprojection,
    fdk,
    fit_affine,
    nearest_by_xrays,
)
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.iterative import sirt, tv
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

ROWS = (
    "constant",
    "mean training volume",
    "nearest training case by X-ray",
    "back-projection (affine fit)",
    "FDK",
    "SIRT",
    "SIRT from the mean volume",
    "TV",
)
"""Names of the rows, in order.

SIRT from the mean is what a network with that prior starts from.
"""


@dataclass(frozen=True)
class Ladder:
    """Baselines for one number of views, fitted on training cases alone.

    mean: `(z, y, x)` HU; library `(n, z, y, x)` int16 HU and library_images `(n, v,
    rows, columns)`: training cases; slope, offset: of the back-projection's HU.
    """

    grid: Grid
    water_per_mm: float
    mean: Tensor
    library: Tensor
    library_images: Tensor
    slope: float
    offset: float
    sirt_iterations: int = 30
    tv_iterations: int = 50
    tv_weight: float = 3e-5

    @classmethod
    def fit(
        cls,
        volumes: Iterable[Tensor],
        xrays: Iterable[Xrays],
        grid: Grid,
        *,
        water_per_mm: float,
        window: tuple[float, float],
    ) -> "Ladder":
        """From training volumes `(z, y, x)` HU, clipped to the window, and the X-rays
        (b = 1) of each.

        All cases, and those given to `reconstruct`, have the same number of views, best
        from the same angles; X-rays on unequal detectors are compared on the smallest.
        Raises `DataError` without any case.
        """
        kept: list[Tensor] = []
        images: list[Tensor] = []
        blurred: list[Tensor] = []
        projector: Projector | None = None
        for volume, exam in zip(volumes, xrays, strict=True):
            kept.append(volume.clamp(*window).round().to(torch.int16))
            images.append(exam.images[0])
            projector = _projector(exam.geometry, grid, projector)
            blurred.append(
                hounsfield_of(backprojection(exam, projector)[0], water=water_per_mm)
            )
        if not kept:
            raise DataError(
                "the baselines of reconstruction need at least one training case with a volume"
            )
        library = torch.stack(kept)
        mean = sum(
            (volume.double() for volume in library),
            start=torch.zeros(grid.shape, dtype=torch.float64),
        )
        slope, offset = fit_affine(blurred, library)
        smallest = (
            min(image.shape[1] for image in images),
            min(image.shape[2] for image in images),
        )
        compared = torch.stack(
            [adaptive_avg_pool2d(image, smallest) for image in images]
        )
        return cls(
            grid,
            water_per_mm,
            (mean / len(library)).float(),
            library,
            compared,
            slope,
            offset,
        )

    def reconstruct(
        self, xrays: Xrays, projector: Projector | None = None
    ) -> dict[str, Tensor]:
        """Volumes `(z, y, x)` in HU by name of the row, of one case (b = 1); projector:
        one made for its geometry.
        """
        projector = _projector(xrays.geometry, self.grid, projector)
        rows, columns = self.library_images.shape[-2:]
        images = adaptive_avg_pool2d(xrays.images, (rows, columns))
        nearest = int(nearest_by_xrays(images, self.library_images))
        start = attenuation_of(self.mean, water=self.water_per_mm)[None]
        found = {
            "constant": torch.full_like(self.mean, float(self.mean.mean())),
            "mean training volume": self.mean,
            "nearest training case by X-ray": self.library[nearest].float(),
            "back-projection (affine fit)": self.slope
            * self._hu(backprojection(xrays, projector))
            + self.offset,
            "FDK": self._hu(fdk(xrays, self.grid)),
            "SIRT": self._hu(sirt(xrays, projector, iterations=self.sirt_iterations)),
            "SIRT from the mean volume": self._hu(
                sirt(xrays, projector, iterations=self.sirt_iterations, start=start)
            ),
            "TV": self._hu(
                tv(
                    xrays,
                    projector,
                    weight=self.tv_weight,
                    iterations=self.tv_iterations,
                )
            ),
        }
        return {name: found[name] for name in ROWS}

    def _hu(self, attenuation: Tensor) -> Tensor:
        return hounsfield_of(attenuation[0], water=self.water_per_mm)


def _projector(geometry: Geometry, grid: Grid, made: Projector | None) -> Projector:
    """The projector at hand if it is for this geometry, else a new one: preparing one
    can cost more than using it.
    """
    return (
        made
        if made is not None and _same(made.geometry, geometry)
        else Projector(geometry, grid)
    )


def _same(one: Geometry, other: Geometry) -> bool:
    if one is other:
        return True
    pairs = [
        (getattr(one, f.name), getattr(other, f.name))
        for f in fields(one)
        if f.name != "detector"
    ]
    return one.detector == other.detector and all(
        a.shape == b.shape and bool((a == b).all()) for a, b in pairs
    )
