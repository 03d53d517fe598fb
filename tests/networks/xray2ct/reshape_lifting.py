"""The lifting that the network is compared with: views are averaged, and a 1x1
convolution names every depth of a pixel.

As published code of hybrid networks does it: geometry has no say, so two views may
change places without any effect. Everything else is the network's own: the pyramid with
attention between the views, the U-Net, the output as what to add to the mean volume.
"""

import torch
import torch.nn.functional as F
from torch import nn

from trivox.networks.xray2ct.sizes import LIFTED, levels_of
from trivox.networks.xray2ct.unet3d import VolumeUNet
from trivox.networks.xray2ct.views2d import MultiScaleFeaturePyramid
from trivox.projection.geometry import Geometry
from trivox.projection.xrays import Xrays


class ReshapeLiftingNet(nn.Module):
    """X-rays to a volume `(b, 1, z, y, x)` in normalised HU, of the size and nearly the
    parameters of the real network.
    """

    def __init__(self, *, grid, size):
        super().__init__()
        self.grid = grid
        self.levels = levels_of(grid.shape)
        self.views = MultiScaleFeaturePyramid(
            size.pyramid, heads=size.heads, attention=size.between_views
        )
        channels = [3 * features for features in size.lifted]
        self.depths = nn.ModuleList(
            nn.Conv2d(width, out * (grid.shape[0] >> i), 1)
            for i, (width, out) in enumerate(zip(size.pyramid, channels, strict=True))
        )
        self.unet = VolumeUNet(size, self.levels, channels)
        self.head = nn.Conv3d(size.widths[self.levels - 1], 1, 1)
        nn.init.zeros_(self.head.weight)
        self.register_buffer("mean_volume", torch.zeros(grid.shape))

    def forward(self, xrays):
        # Whatever the geometry was.
        alike = Geometry.orbit(
            [0.0] * xrays.views, detector=xrays.geometry.detector, pixel_mm=1.0
        )
        maps = self.views(Xrays(xrays.images, alike, xrays.present))

        def given(level):
            i = self.levels - 1 - level
            z, y, x = (n >> i for n in self.grid.shape)
            flat = F.adaptive_avg_pool2d(maps[i].mean(dim=1), (y, x))
            return self.depths[i](flat).unflatten(1, (-1, z))

        assert len(maps) == LIFTED
        finest = self.levels - 1
        levels = range(self.levels - LIFTED, self.levels)
        of_level = {level: given(level) for level in levels}
        return self.mean_volume + self.head(self.unet(of_level, finest)[finest])
