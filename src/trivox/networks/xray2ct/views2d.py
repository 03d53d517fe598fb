"""What the network sees in the X-rays: a pyramid of features for each view, and
attention between all views.

No view has an index or weights of its own. A pixel is known by its ray, given in
Plücker coordinates.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.errors import GeometryError
from trivox.networks.halves import GroupNorm, LayerNorm, in_type, interpolated
from trivox.networks.transformer_kernels import attended_in_full, is_small
from trivox.projection.xrays import SCALES, Xrays
from trivox.uploads import constant

LINE_INTEGRALS = 4.0
"""What images are divided by: a constant, so that the total mass that a ray met stays
known. Chests reach about 6.
"""
PIXEL_STEP = 2 ** (SCALES - 1)
"""Edges of a detector are multiples of this."""
OCTAVES = 4
"""Frequencies 1, 2, 4, 8 of the ray's coordinates that tell neighbouring tokens apart.
"""
RAY = 6
FEW = 256**2
"""Pairs of tokens, as of four views of 64 x 64 pixels."""


def normed2d(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    """Convolution, group norm, GELU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(
        convolution, GroupNorm(max(1, outputs // 8), outputs), nn.GELU()
    )


def rays_at(xrays: Xrays, factor: int) -> Tensor:
    """Rays `(v, 6, rows, columns)` that the exams share, or `(b, v, 6, rows, columns)`,
    of the detector with `factor` x `factor` pixels joined.
    """
    rays = xrays.geometry.rays_on(xrays.images.device, SCALES)[factor]
    return rays.movedim(-1, -3)


class CrossViewTransformerAttention(nn.Module):
    """Every pixel of every view attends to all pixels of all present views, known by
    their rays; then a feed-forward layer.

    Permuting views with their rays permutes the result. Absent views are seen by none.
    """

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(channels)
        self.feed_norm = LayerNorm(channels)
        self.place = nn.Linear(RAY * (1 + 2 * OCTAVES), channels)
        self.to_query_key = nn.Linear(channels, 2 * channels)
        self.to_value = nn.Linear(channels, channels)
        self.project = nn.Linear(channels, channels)
        self.feed = nn.Sequential(
            nn.Linear(channels, 2 * channels),
            nn.GELU(),
            nn.Linear(2 * channels, channels),
        )

    def forward(self, maps: Tensor, rays: Tensor, present: Tensor) -> Tensor:
        """Maps `(b, v, c, h, w)`, rays `(b, v, 6, h, w)`, present `(b, v)` to maps of
        the same shape.
        """
        b, v, c, h, w = maps.shape
        count = v * h * w
        tokens = maps.movedim(2, -1).reshape(b, count, c)
        coordinates = rays.movedim(2, -1).reshape(b, count, RAY)
        places = self.place(waves(coordinates))
        # An exam without any view attends to its blanks, since a softmax over nothing
        # is NaN; the lifting leaves them out.
        absent = present.any(dim=1, keepdim=True) > present
        normed = self.norm(tokens)
        placed = self.to_query_key(normed + places)
        query, key = placed.chunk(2, dim=-1)
        value = self.to_value(normed)
        hidden = value.new_zeros(b, v, h * w).masked_fill_(
            absent[..., None], -torch.inf
        )
        attended = attended_by_all(
            self._split(query),
            self._split(key),
            self._split(value),
            hidden.flatten(1),
        )
        attended = attended.transpose(1, 2).flatten(2)
        tokens = tokens + self.project(attended)
        tokens = tokens + self.feed(self.feed_norm(tokens))
        out: Tensor = tokens.reshape(b, v, h, w, c).movedim(-1, 2).to(maps.dtype)
        return out

    def _split(self, x: Tensor) -> Tensor:
        """`(b, n, c)` to `(b, heads, n, c / heads)`."""
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads


def attended_by_all(
    query: Tensor, key: Tensor, value: Tensor, hidden: Tensor
) -> Tensor:
    """Attention of `(b, heads, n, d)` whose keys are hidden where `(b, n)` is minus
    infinity, and shown where it is 0.
    """
    bias = hidden[:, None, None]
    if is_small(query, key, most=FEW):
        return attended_in_full(query, key, value, bias)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias)


def waves(rays: Tensor) -> Tensor:
    """Coordinates `(..., 6)` with sines and cosines of their first octaves, `(..., 6 *
    (1 + 2 * OCTAVES))`.
    """
    frequencies = tuple(math.pi * 2.0**octave for octave in range(OCTAVES))
    angles = rays[..., None] * constant(frequencies, rays.device)
    angles = angles.flatten(-2)
    parts = (
        rays,
        angles.sin(),
        angles.cos(),
    )
    return torch.cat(parts, dim=-1)


class MultiScaleFeaturePyramid(nn.Module):
    """Features of each view at 1, 1/2, 1/4 and 1/8 of the detector; the same weights
    for all views.

    Down the scales, attention between the views at the smallest, and back up with each
    scale keeping its own resolution (Lin et al. 2017). widths: features of the four
    scales; attention: blocks between the views.
    """

    def __init__(self, widths: tuple[int, ...], *, heads: int, attention: int) -> None:
        super().__init__()
        before = (1, *widths[:-1])
        self.down = nn.ModuleList(
            _scale(inputs, width, stride=1 if scale == 0 else 2)
            for scale, (inputs, width) in enumerate(zip(before, widths, strict=True))
        )
        self.attention = nn.ModuleList(
            CrossViewTransformerAttention(widths[-1], heads=heads)
            for _ in range(attention)
        )
        self.up = nn.ModuleList(
            nn.Conv2d(widths[s + 1], widths[s], 1) for s in range(SCALES - 1)
        )
        self.merge = nn.ModuleList(normed2d(width, width) for width in widths[:-1])

    def forward(self, xrays: Xrays) -> list[Tensor]:
        """Maps `(b, v, c, rows, columns)`, finest first; raises `GeometryError` if a
        detector cannot be halved thrice.
        """
        rows, columns = xrays.geometry.detector
        if rows % PIXEL_STEP or columns % PIXEL_STEP:
            raise GeometryError(
                f"X-rays of {rows} x {columns} pixels: the network needs multiples of "
                f"{PIXEL_STEP}, pad or resample"
            )
        b, v = xrays.images.shape[:2]
        maps = self._down(xrays)
        maps[-1] = self._between_views(maps[-1], xrays)
        for scale in range(SCALES - 2, -1, -1):
            here = maps[scale]
            above = self.up[scale](maps[scale + 1])
            above = interpolated(above, here.shape[2:])
            maps[scale] = self.merge[scale](here + above)
        return [x.unflatten(0, (b, v)) for x in maps]

    def _down(self, xrays: Xrays) -> list[Tensor]:
        """Maps of each view alone, `(b * v, c, rows, columns)`, finest first."""
        views = xrays.images.shape[:2]
        factors = [2 ** max(scale - 1, 0) for scale in range(SCALES)]  # of the inputs
        rays = [rays_at(xrays, factor) for factor in factors]
        weight = self.up[0].weight
        assert isinstance(weight, Tensor)
        images, *rays = in_type([xrays.images / LINE_INTEGRALS, *rays], weight.dtype)
        x = images[:, :, None]
        maps: list[Tensor] = []
        for lines, stage in zip(rays, self.down, strict=True):
            lines = lines.to(x.dtype).expand(*views, -1, -1, -1)
            together = torch.cat((x, lines), dim=2)
            maps.append(stage(together.flatten(0, 1)))
            x = maps[-1].unflatten(0, views)
        return maps

    def _between_views(self, x: Tensor, xrays: Xrays) -> Tensor:
        b, v = xrays.images.shape[:2]
        rays = rays_at(xrays, PIXEL_STEP).expand(b, -1, -1, -1, -1)
        x = x.unflatten(0, (b, v))
        for block in self.attention:
            x = block(x, rays, xrays.present)
        return x.flatten(0, 1)


def _scale(inputs: int, width: int, *, stride: int) -> nn.Sequential:
    """Two convolutions; the first one also sees the rays."""
    return nn.Sequential(
        normed2d(inputs + RAY, width, stride=stride), normed2d(width, width)
    )
