"""Line integrals of a volume along X-rays, and the exact adjoint."""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from trivox.projection.geometry import Geometry, Grid


class Projector:
    """Projects volumes on a grid along the rays of a geometry (Joseph 1982), differentiably in both directions.

    geometry: `(v,)` for all exams, or `(b, v)` for a batch of exactly that many.
    """

    def __init__(self, geometry: Geometry, grid: Grid) -> None:
        self.geometry, self.grid = geometry, grid

    def project(self, volumes: Tensor) -> Tensor:
        """Line integrals `(b, v, rows, columns)` of attenuation `(b, z, y, x)` in 1/mm; zero outside the grid."""
        if self.geometry.batched:
            parts = [self._one(volume[None], self.geometry.exam(i)) for i, volume in enumerate(volumes)]
            return torch.cat(parts)
        return self._one(volumes, self.geometry)

    def backproject(self, images: Tensor) -> Tensor:
        """The adjoint of `project`: `(b, v, rows, columns)` to `(b, z, y, x)`."""
        with torch.enable_grad():
            blank = torch.zeros(len(images), *self.grid.shape, dtype=images.dtype, device=images.device, requires_grad=True)
            (found,) = torch.autograd.grad(self.project(blank), blank, images, create_graph=images.requires_grad)
        return found

    def _one(self, volumes: Tensor, geometry: Geometry) -> Tensor:
        return torch.stack([self._view(volumes, geometry.select([v])) for v in range(geometry.views)], dim=1)

    def _view(self, volumes: Tensor, geometry: Geometry) -> Tensor:
        source, pixels = geometry.source[0], geometry.pixel_points()[0]  # (3,), (h, w, 3)
        axis = int(geometry.axes()[0][0].abs().argmax())  # x, y or z
        direction = pixels - source
        slope = direction[..., axis]
        step = self.grid.spacing[2 - axis] * direction.norm(dim=-1) / slope.abs()
        planes = self.grid.coordinates(dtype=volumes.dtype, device=volumes.device)[2 - axis]
        at = source + ((planes[:, None, None] - source[axis]) / slope)[..., None] * direction  # (k, h, w, 3)
        others = [other for other in (0, 1, 2) if other != axis]
        places = [
            (at[..., other] - self.grid.centre_mm[other]) * (2 / self.grid.extent_mm[2 - other]) for other in others
        ]
        slices = volumes.movedim(1 + (2 - axis), 0)  # (k, b, rows, columns): the first of `others` runs along columns
        sampled = grid_sample(slices, torch.stack(places, dim=-1), align_corners=False)
        return sampled.sum(dim=0) * step
