"""Self-attention over the voxels of a feature map, in windows, dilated grids, shifted windows or all of them.

Positions enter as axial rotary embeddings computed from the grid at hand, so a network is not tied to a patch size.
Tokens are `(b, n, c)` with `n = z * y * x`; coordinates are in tokens.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trivox.networks.efficient import DropPath

HEAD_DIM = 48
"""Divisible by 6 (two rotated halves of three axes) and by 8 (fused attention kernels)."""
BASE = 100.0
"""Slowest rotation: about one turn in 350 tokens."""
WINDOW = 8
"""Tokens along an axis of a window."""
LAYER_SCALE = 0.1

Grid = tuple[int, int, int]
Partition = Literal["global", "window", "shifted", "grid"]


def rotate(x: Tensor, coordinates: Tensor) -> Tensor:
    """Rotary position embedding in three axes (Su et al. 2021, axial as in Heo et al. 2024).

    x `(..., t, d)`, coordinates `(..., t, 3)`; a third of the pairs turns with each axis, so the product of two rotated
    vectors depends on the difference of their coordinates alone.
    """
    pairs = x.shape[-1] // 6
    frequency = BASE ** (-torch.arange(pairs, device=x.device, dtype=torch.float32) / pairs)
    angle = (coordinates.float()[..., None] * frequency).flatten(-2)  # (..., t, d / 2)
    cosine, sine = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def _axis_groups(size: int, window: int, partition: Partition) -> Tensor:
    """Positions along an axis, `(groups, members)`, padded with -1."""
    if size <= window or partition == "global":
        return torch.arange(size)[None]
    count = -(-size // window)
    members = -(-size // count)  # equal windows rather than full ones and a rest
    if partition == "grid":
        position = torch.arange(members)[None] * count + torch.arange(count)[:, None]
    else:
        shift = members // 2 if partition == "shifted" else 0
        groups = torch.arange(count + (shift > 0))[:, None]
        position = groups * members + torch.arange(members) - shift
    return torch.where((position >= 0) & (position < size), position, -1)


@dataclass(frozen=True, eq=False)
class Groups:
    """Which tokens attend to each other."""

    index: Tensor
    """Flat positions of the members, `(groups, t)`; padding points to token 0."""
    real: Tensor | None
    """False where a member is padding, `(groups, t)`; None where none is."""
    place: Tensor
    """Where each token went among all members, `(n,)`."""


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is made in inference mode may not be used in training later
def token_groups(grid: Grid, window: int, partition: Partition, device: torch.device) -> Groups:
    """The groups of a grid of tokens."""
    z, y, x = (_axis_groups(size, window, partition) for size in grid)
    z, y, x = z[:, None, None, :, None, None], y[None, :, None, None, :, None], x[None, None, :, None, None, :]
    flat = (z * grid[1] + y) * grid[2] + x
    flat = torch.where((z >= 0) & (y >= 0) & (x >= 0), flat, -1)
    members = flat.reshape(flat.shape[0] * flat.shape[1] * flat.shape[2], -1)
    members = members[(members >= 0).any(1)]  # shifting may leave a group without tokens
    real = members >= 0
    place = torch.empty(grid[0] * grid[1] * grid[2], dtype=torch.long)
    place[members[real]] = torch.nonzero(real.flatten())[:, 0]
    padded = not bool(real.all())
    return Groups(members.clamp(min=0).to(device), real.to(device) if padded else None, place.to(device))


def grid_coordinates(grid: Grid, device: torch.device | None = None) -> Tensor:
    """Coordinates `(n, 3)` of the tokens of a grid."""
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


class MultiHeadSelfAttention3D(nn.Module):
    """Multi-head attention with normalised queries and keys and rotary positions; heads of `HEAD_DIM` channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        if channels % HEAD_DIM:
            raise ValueError(f"attention needs a multiple of {HEAD_DIM} channels, got {channels}")
        self.heads = channels // HEAD_DIM
        self.to_query = nn.Linear(channels, channels, bias=False)
        self.to_key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.query_norm, self.key_norm = nn.LayerNorm(HEAD_DIM), nn.LayerNorm(HEAD_DIM)
        self.project = nn.Linear(channels, channels)

    def forward(
        self,
        tokens: Tensor,
        coordinates: Tensor,
        *,
        keys: Tensor | None = None,
        key_coordinates: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """`(n, t, c)` to the same. Keys and values come from the tokens, or from `keys` `(n, k, c)`.

        coordinates: `(n or 1, t, 3)`; mask: `(n, t or 1, k)`, true where a key may be seen.
        """
        query, key, value = self._parts(tokens, coordinates, keys, key_coordinates)
        query, key = query.to(value.dtype), key.to(value.dtype)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=None if mask is None else mask[:, None])
        return self._project(out)

    def weights(
        self, tokens: Tensor, coordinates: Tensor, *, keys: Tensor | None = None, key_coordinates: Tensor | None = None
    ) -> Tensor:
        """Attention weights of `forward` averaged over the heads, `(n, t, k)`: for pictures, not for training."""
        query, key, _ = self._parts(tokens, coordinates, keys, key_coordinates)
        logits = query.float() @ key.float().transpose(-1, -2) / HEAD_DIM**0.5
        averaged: Tensor = logits.softmax(-1).mean(1)
        return averaged

    def _parts(
        self, tokens: Tensor, coordinates: Tensor, keys: Tensor | None, key_coordinates: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values `(n, heads, t or k, d)`, the first two normalised and rotated."""
        keys = tokens if keys is None else keys
        key_coordinates = coordinates if key_coordinates is None else key_coordinates
        query = self.query_norm(self._heads(self.to_query(tokens)))
        key, value = (self._heads(part) for part in self.to_key_value(keys).chunk(2, dim=-1))
        return rotate(query, coordinates[:, None]), rotate(self.key_norm(key), key_coordinates[:, None]), value

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], self.heads, HEAD_DIM).transpose(1, 2)  # (n, heads, t, d)

    def _project(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(x.transpose(1, 2).flatten(2))
        return out


class SwiGLU(nn.Module):
    """Gated feed-forward layer with 8/3 of the width inside (Shazeer 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = round(channels * 8 / 3 / 16) * 16
        self.gate = nn.Linear(channels, 2 * inner, bias=False)
        self.project = nn.Linear(inner, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        gate, value = self.gate(x).chunk(2, dim=-1)
        out: Tensor = self.project(F.silu(gate) * value)
        return out


class TransformerBlock3D(nn.Module):
    """Pre-norm attention and feed-forward layers with layer scale and stochastic depth, on `(b, c, z, y, x)`.

    partition: "global" (all tokens), "window", "shifted" (windows moved by half) or "grid" (tokens spread evenly over the
    whole map, as in MaxViT, Tu et al. 2022).
    """

    def __init__(self, channels: int, partition: Partition, *, window: int = WINDOW, drop_path: float = 0.0) -> None:
        super().__init__()
        self.partition, self.window = partition, window
        self.attention_norm, self.feed_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = MultiHeadSelfAttention3D(channels)
        self.feed = SwiGLU(channels)
        self.attention_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.feed_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        grid = (x.shape[2], x.shape[3], x.shape[4])
        tokens: Tensor = x.movedim(1, -1).flatten(1, 3)  # (b, n, c)
        tokens = tokens + self.drop_path(self.attention_scale * self.attend(self.attention_norm(tokens), grid))
        tokens = tokens + self.drop_path(self.feed_scale * self.feed(self.feed_norm(tokens)))
        out: Tensor = tokens.reshape(len(x), *grid, -1).movedim(-1, 1).to(x.dtype)
        return out

    def attend(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Attention within each group of tokens, `(b, n, c)` to the same."""
        coordinates = grid_coordinates(grid, tokens.device)
        groups = token_groups(grid, self.window, self.partition, tokens.device)
        if len(groups.index) == 1:
            whole: Tensor = self.attention(tokens, coordinates[None])
            return whole
        b = len(tokens)
        parts = tokens[:, groups.index].flatten(0, 1)  # (b * groups, t, c)
        mask = None if groups.real is None else groups.real[:, None].repeat(b, 1, 1)
        out: Tensor = self.attention(parts, coordinates[groups.index].repeat(b, 1, 1), mask=mask)
        return out.reshape(b, groups.index.numel(), -1)[:, groups.place]


class SwinTransformerBlock3D(nn.Sequential):
    """Attention in windows, then in windows shifted by half their size (Liu et al. 2021).

    Windows that the border cuts are filled up with masked tokens: no token sees the opposite side of the image.
    """

    def __init__(self, channels: int, *, window: int = WINDOW, drop_path: float = 0.0) -> None:
        super().__init__(
            TransformerBlock3D(channels, "window", window=window, drop_path=drop_path),
            TransformerBlock3D(channels, "shifted", window=window, drop_path=drop_path),
        )
