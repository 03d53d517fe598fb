"""The ladder: what a reconstruction network has to beat, from a constant to total
variation, each a row of every report.
"""

from collections.abc import Iterable
from dataclasses import dataclass

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
"""Names of the rows, in order; SIRT from the mean is what a network with that prior
starts from.
"""


_NO_CASES = (
    "the baselines of reconstruction need at least one training case with a volume"
)


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
        clipped: list[Tensor] = []
        images: list[Tensor] = []
        blurred: list[Tensor] = []
        projector: Projector | None = None
        for volume, exam in zip(volumes, xrays, strict=True):
            clipped.append(volume.clamp(*window).round().to(torch.int16))
            images.append(exam.images[0])
            projector = _projector(exam.geometry, grid, projector)
            attenuation = backprojection(exam, projector)[0]
            blurred.append(hounsfield_of(attenuation, water=water_per_mm))
        if not clipped:
            raise DataError(_NO_CASES)
        library = torch.stack(clipped)
        slope, offset = fit_affine(blurred, library)
        return cls(
            grid=grid,
            water_per_mm=water_per_mm,
            mean=_mean(library),
            library=library,
            library_images=_on_smallest(images),
            slope=slope,
            offset=offset,
        )

    def reconstruct(
        self, xrays: Xrays, projector: Projector | None = None
    ) -> dict[str, Tensor]:
        """Volumes `(z, y, x)` in HU by name of the row, of one case (b = 1); projector:
        one made for its geometry.
        """
        projector = _projector(xrays.geometry, self.grid, projector)
        blurred = self._hu(backprojection(xrays, projector))
        filtered = fdk(xrays, self.grid)
        count = self.sirt_iterations
        from_zero = sirt(xrays, projector, iterations=count)
        start = attenuation_of(self.mean, water=self.water_per_mm)[None]
        from_mean = sirt(xrays, projector, iterations=count, start=start)
        smooth = tv(
            xrays, projector, weight=self.tv_weight, iterations=self.tv_iterations
        )
        volumes = (
            torch.full_like(self.mean, float(self.mean.mean())),
            self.mean,
            self._nearest(xrays),
            self.slope * blurred + self.offset,
            self._hu(filtered),
            self._hu(from_zero),
            self._hu(from_mean),
            self._hu(smooth),
        )
        return dict(zip(ROWS, volumes, strict=True))

    def _nearest(self, xrays: Xrays) -> Tensor:
        rows, columns = self.library_images.shape[-2:]
        images = adaptive_avg_pool2d(xrays.images, (rows, columns))
        index = int(nearest_by_xrays(images, self.library_images))
        return self.library[index].float()

    def _hu(self, attenuation: Tensor) -> Tensor:
        return hounsfield_of(attenuation[0], water=self.water_per_mm)


def _mean(library: Tensor) -> Tensor:
    """Of volumes `(n, z, y, x)`, summed in float64 one by one: all together would be
    many times the library.
    """
    total = torch.zeros(library.shape[1:], dtype=torch.float64)
    for volume in library:
        total += volume.double()
    return (total / len(library)).float()


def _on_smallest(images: list[Tensor]) -> Tensor:
    """Images `(v, rows, columns)` of each case, as coarse as the coarsest."""
    rows = min(image.shape[1] for image in images)
    columns = min(image.shape[2] for image in images)
    pooled = [adaptive_avg_pool2d(image, (rows, columns)) for image in images]
    return torch.stack(pooled)


def _projector(geometry: Geometry, grid: Grid, made: Projector | None) -> Projector:
    """The projector at hand if it is for this geometry, else a new one: preparing one
    can cost more than using it.
    """
    if made is not None and _same(made.geometry, geometry):
        return made
    return Projector(geometry, grid)


def _same(one: Geometry, other: Geometry) -> bool:
    if one is other:
        return True
    if one.detector != other.detector:
        return False
    for name, part in one.tensors().items():
        theirs = other.tensors()[name]
        if part.shape != theirs.shape or not bool((part == theirs).all()):
            return False
    return True
