"""Products with the projection matrix that are computed as rays are followed; nothing
of its size is ever held. On a CPU.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.rays import PAD, Pencil, Rule, padded_shape, pencils


class Tracing:
    """A projection of volumes `(b, z, y, x)` to `(b, v, rows, columns)` and its
    adjoint, by a rule for reading voxels.
    """

    def __init__(
        self,
        geometry: Geometry,
        grid: Grid,
        rule: Rule,
        *,
        dtype: torch.dtype,
    ) -> None:
        self.grid = grid
        self.rule = rule
        self.images = (geometry.views, *geometry.detector)
        self.parts: list[Pencil] = []
        for rays in pencils(geometry, grid, dtype=dtype):
            self.parts += rays.parts()

    def forward(self, volumes: Tensor) -> Tensor:
        """Line integrals of `(b, z, y, x)`."""
        padded = pad(volumes, PAD * 3).flatten(1)
        images = volumes.new_zeros(len(volumes), math.prod(self.images))
        for rays in self.parts:
            taps = self.rule(rays)
            shape = taps[0][1].shape
            total = volumes.new_zeros(len(volumes), *shape)
            for place, weight in taps:
                values = padded.index_select(1, place.flatten())
                total.addcmul_(values.view(-1, *shape), weight)
            images[:, rays.which] = total.sum(dim=-1) * rays.step
        return images.view(len(volumes), *self.images)

    def adjoint(self, images: Tensor) -> Tensor:
        """Back-projection of `(b, v, rows, columns)`."""
        shape = padded_shape(self.grid)
        volumes = images.new_zeros(len(images), math.prod(shape))
        for rays in self.parts:
            taps = self.rule(rays)
            # one by one: index_add along rows is 20 times slower
            for image, voxels in zip(images.flatten(1), volumes, strict=True):
                value = (image[rays.which] * rays.step)[:, None]
                for place, weight in taps:
                    voxels.index_add_(0, place.flatten(), (weight * value).flatten())
        inner = (slice(PAD[0], -PAD[1]),) * 3
        return volumes.view(len(images), *shape)[:, *inner].contiguous()
