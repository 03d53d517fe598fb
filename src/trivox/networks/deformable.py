"""Deformable attention (Xia et al. 2022, in 3-D): every token looks at the same places,
which the image chooses.
"""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.networks.attention import (
    LAYER_SCALE,
    MultiHeadSelfAttention3D,
    TokenGrid,
    grid_coordinates,
)
from trivox.networks.depthwise import DepthwiseConv3d
from trivox.networks.efficient import DropPath, Pointwise
from trivox.networks.halves import LayerNorm
from trivox.networks.layers import InstanceNorm
from trivox.networks.transformer_kernels import SwiGLU

STRIDE = 2
"""One sampling point for a block of this many tokens along each axis."""
REACH = 2.0
"""How far a point can move, in distances between points."""


def gathered(tokens: Tensor, points: Tensor, grid: TokenGrid) -> Tensor:
    """Tokens `(b, n, c)` of a grid interpolated linearly at points `(b, k, 3)` inside
    it, `(b, k, c)`: torch's `grid_sample` for runtimes that have it for pictures only.
    """
    result = torch.zeros_like(points[..., :1])
    for corner in product((0, 1), repeat=3):
        index, weight = _corner(points, corner, grid)
        chosen = index[..., None].expand(-1, -1, tokens.shape[-1])
        result = result + tokens.gather(1, chosen) * weight[..., None]
    return result


def _corner(
    points: Tensor, corner: tuple[int, ...], grid: TokenGrid
) -> tuple[Tensor, Tensor]:
    """The token at one corner of the cell around each point, and its weight, `(b, k)`."""
    index = torch.zeros_like(points[..., 0])
    weight = torch.ones_like(index)
    for axis, size in enumerate(grid):
        place = points[..., axis]
        low = place.floor()
        along = place - low
        if corner[axis]:
            low = (low + 1).clamp(max=size - 1)
            weight = weight * along
        else:
            weight = weight * (1 - along)
        index = index * size + low
    return index.long(), weight


class DeformableAttention3D(nn.Module):
    """Transformer block whose keys and values are interpolated at points that move away
    from a regular grid.

    The layer that predicts the offsets starts at zero, so the points start on the grid.
    """

    def __init__(self, channels: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(channels)
        self.feed_norm = LayerNorm(channels)
        self.offsets = nn.Sequential(
            DepthwiseConv3d(channels, (3, 3, 3), (STRIDE,) * 3),
            InstanceNorm(channels),
            nn.GELU(),
            Pointwise(channels, 3),
        )
        self.attention = MultiHeadSelfAttention3D(channels)
        self.feed = SwiGLU(channels)
        self.attention_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.feed_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)
        self.reset_offsets()

    def reset_offsets(self) -> None:
        """Put the points back on the regular grid."""
        last = self.offsets[-1]
        assert isinstance(last, Pointwise)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`(b, c, z, y, x)` to the same."""
        grid = (x.shape[2], x.shape[3], x.shape[4])
        tokens = x.movedim(1, -1).flatten(1, 3)  # (b, n, c)
        attended = self._attend(self.attention_norm(tokens), grid)
        tokens = tokens + self.drop_path(self.attention_scale * attended)
        fed = self.feed(self.feed_norm(tokens))
        tokens = tokens + self.drop_path(self.feed_scale * fed)
        out: Tensor = tokens.reshape(x.shape[0], *grid, -1).movedim(-1, 1).to(x.dtype)
        return out

    def points(self, features: Tensor) -> Tensor:
        """Where the keys are taken from, `(b, k, 3)` in tokens, for features `(b, c, z,
        y, x)`.
        """
        size = features.shape[2:]
        offsets = torch.tanh(self.offsets(features).float())  # (b, 3, z/2, y/2, x/2)
        offsets = offsets * REACH * STRIDE
        coarse = (offsets.shape[2], offsets.shape[3], offsets.shape[4])
        steps = [n / k for n, k in zip(size, coarse, strict=True)]
        scale = torch.tensor(steps, device=features.device)
        regular = (grid_coordinates(coarse, features.device) + 0.5) * scale - 0.5
        limit = torch.tensor([n - 1.0 for n in size], device=features.device)
        moved = regular + offsets.flatten(2).transpose(1, 2)
        return moved.clamp(min=torch.zeros_like(limit), max=limit)

    def keys(self, tokens: Tensor, grid: TokenGrid) -> tuple[Tensor, Tensor]:
        """Normalised tokens `(b, n, c)` interpolated at the points, `(b, k, c)`, and
        the points, `(b, k, 3)`.
        """
        features = tokens.transpose(1, 2).reshape(tokens.shape[0], -1, *grid)
        points = self.points(features)
        half = torch.tensor([(n - 1) / 2 or 1.0 for n in grid], device=points.device)
        place = (points / half - 1).flip(-1)  # (b, k, xyz) in -1..1
        if torch.compiler.is_exporting():
            return gathered(tokens, points, grid), points
        sampled = F.grid_sample(
            features.float(), place[:, :, None, None], align_corners=True
        )
        keys = sampled[..., 0, 0].transpose(1, 2)  # (b, k, c)
        return keys.to(tokens.dtype), points

    def _attend(self, tokens: Tensor, grid: TokenGrid) -> Tensor:
        keys, points = self.keys(tokens, grid)
        places = grid_coordinates(grid, tokens.device)[None]
        out: Tensor = self.attention(tokens, places, keys=keys, key_coordinates=points)
        return out
