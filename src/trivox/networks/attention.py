"""Self-attention over the voxels of a feature map, in windows, dilated grids, shifted
windows or all of them.

Positions enter as axial rotary embeddings computed from the grid at hand, or, in Swin
blocks, as a learnt bias for each offset within a window: a network is not tied to a
patch size. Tokens are `(b, n, c)` with `n = z * y * x`; coordinates are in tokens.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from trivox.networks.efficient import DropPath
from trivox.networks.halves import LayerNorm
from trivox.networks.transformer_kernels import (
    SwiGLU,
    attended_in_full,
    is_small,
    moved,
    with_branch,
)
from trivox.uploads import made_once

HEAD_DIM = 48
"""Divisible by 6 (two rotated halves of three axes) and by 8 (fused attention kernels).
"""
BASE = 100.0
"""Slowest rotation: about one turn in 350 tokens."""
WINDOW = 8
"""Tokens along an axis of a window."""
LAYER_SCALE = 0.1

TokenGrid = tuple[int, int, int]
Partition = Literal["global", "window", "shifted", "grid"]


def rotate(x: Tensor, coordinates: Tensor) -> Tensor:
    """Rotary position embedding in three axes (Su et al. 2021, axial as in Heo et al.
    2024).

    x `(..., t, d)`, coordinates `(..., t, 3)`; a third of the pairs turns with each
    axis, so the product of two rotated vectors depends on the difference of their
    coordinates alone.
    """
    pairs = x.shape[-1] // 6
    frequency = BASE ** (
        -torch.arange(pairs, device=x.device, dtype=torch.float32) / pairs
    )
    angle = (coordinates.float()[..., None] * frequency).flatten(-2)  # (..., t, d / 2)
    cosine = angle.cos().to(x.dtype)
    sine = angle.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return torch.cat(turned, dim=-1)


class RelativePositionBias3D(nn.Module):
    """A learnt number for each head and offset within a window, added to the attention
    logits (Liu et al. 2021, eq. 4).
    """

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.window = window
        # one-dimensional as biases are, so weight decay leaves it alone, as Swin's does
        self.table = nn.Parameter(torch.empty(heads * (2 * window - 1) ** 3))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, query_coordinates: Tensor, key_coordinates: Tensor) -> Tensor:
        """Coordinates `(..., t, 3)` and `(..., k, 3)` less than a window apart on each
        axis; bias `(..., heads, t, k)`.
        """
        table = self.table.view(-1, self.heads)
        if query_coordinates is key_coordinates:
            entries = within_window(query_coordinates, self.window)
        else:
            entries = table_entries(query_coordinates, key_coordinates, self.window)
        return F.embedding(entries, table).movedim(-1, -3)


def table_entries(query: Tensor, key: Tensor, window: int) -> Tensor:
    """Which entry of the table of a `RelativePositionBias3D` belongs to each pair of
    coordinates, `(..., t, k)`.
    """
    offset = query[..., :, None, :] - key[..., None, :, :]
    z, y, x = (offset.long() + window - 1).unbind(-1)
    side = 2 * window - 1
    return (z * side + y) * side + x


_ENTRIES: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def within_window(coordinates: Tensor, window: int) -> Tensor:
    """`table_entries` of the coordinates of a window among themselves, computed once:
    those of `token_groups` stay the same tensors.
    """
    known: dict[int, Tensor] = _ENTRIES.setdefault(coordinates, {})
    if window not in known:
        with torch.inference_mode(False):
            known[window] = table_entries(coordinates, coordinates, window)
    return known[window]


def _axis_groups(size: int, window: int, partition: Partition) -> tuple[Tensor, Tensor]:
    """Positions along an axis, `(groups, members)`, padded with -1, and how far the
    members are from the first one.
    """
    if size <= window or partition == "global":
        return torch.arange(size)[None], torch.arange(size)
    # Equal windows rather than full ones and a rest.
    count = -(-size // window)
    members = -(-size // count)
    if partition == "grid":
        away = torch.arange(members) * count
        position = away + torch.arange(count)[:, None]
    else:
        away = torch.arange(members)
        shift = members // 2 if partition == "shifted" else 0
        position = torch.arange(count + (shift > 0))[:, None] * members + away - shift
    return torch.where((position >= 0) & (position < size), position, -1), away


@dataclass(frozen=True, eq=False)
class Groups:
    """Which tokens attend to each other."""

    index: Tensor
    """Flat positions of the members, `(groups, t)`; padding points to token 0."""
    real: Tensor | None
    """False where a member is padding, `(groups, t)`; None where none is."""
    place: Tensor
    """Where each token went among all members, `(n,)`."""
    coordinates: Tensor
    """Of the members from the first one on, `(1, t, 3)`: the same in every group."""


@made_once(64)
def hidden_members(groups: Groups, samples: int) -> Tensor | None:
    """What to add to the logits of the members of the groups of so many samples as keys,
    `(samples * groups, 1, t)`: minus infinity where one is padding, otherwise 0; None
    where none is.
    """
    if groups.real is None:
        return None
    shown = torch.zeros(groups.real.shape, device=groups.real.device)
    hidden = shown.masked_fill_(~groups.real, -torch.inf)
    return hidden[:, None].repeat(samples, 1, 1)


@made_once(64)
def token_groups(
    grid: TokenGrid, window: int, partition: Partition, device: torch.device
) -> Groups:
    """The groups of a grid of tokens."""
    axes = [_axis_groups(size, window, partition) for size in grid]
    positions, away = zip(*axes, strict=True)
    coordinates = torch.stack(torch.meshgrid(*away, indexing="ij"), dim=-1)
    members = _members(grid, positions)
    real = members >= 0
    place = torch.empty(grid[0] * grid[1] * grid[2], dtype=torch.long)
    place[members[real]] = torch.nonzero(real.flatten())[:, 0]
    padded = not bool(real.all())
    return Groups(
        index=members.clamp(min=0).to(device),
        real=real.to(device) if padded else None,
        place=place.to(device),
        coordinates=coordinates.reshape(1, -1, 3).float().to(device),
    )


def _members(grid: TokenGrid, positions: tuple[Tensor, ...]) -> Tensor:
    """Flat positions of the members of each group, `(groups, t)`, -1 for padding, from
    those along each axis; groups without tokens, which shifting may leave, are left
    out.
    """
    along_z, along_y, along_x = positions
    z = along_z[:, None, None, :, None, None]
    y = along_y[None, :, None, None, :, None]
    x = along_x[None, None, :, None, None, :]
    flat = (z * grid[1] + y) * grid[2] + x
    flat = torch.where((z >= 0) & (y >= 0) & (x >= 0), flat, -1)
    members = flat.flatten(3).flatten(0, 2)
    return members[(members >= 0).any(1)]


def grid_coordinates(grid: TokenGrid, device: torch.device | None = None) -> Tensor:
    """Coordinates `(n, 3)` of the tokens of a grid."""
    axes = [torch.arange(size, device=device, dtype=torch.float32) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)


class MultiHeadSelfAttention3D(nn.Module):
    """Multi-head attention with normalised queries and keys; heads of `HEAD_DIM`
    channels.

    Positions are rotary, or with a `window` the bias of `RelativePositionBias3D`.
    """

    def __init__(self, channels: int, *, window: int | None = None) -> None:
        super().__init__()
        if channels % HEAD_DIM:
            raise ValueError(
                f"attention needs a multiple of {HEAD_DIM} channels, got {channels}"
            )
        self.heads = channels // HEAD_DIM
        self.to_query = nn.Linear(channels, channels, bias=False)
        self.to_key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.query_norm = LayerNorm(HEAD_DIM)
        self.key_norm = LayerNorm(HEAD_DIM)
        self.project = nn.Linear(channels, channels)
        self.position_bias = (
            None if window is None else RelativePositionBias3D(self.heads, window)
        )

    def forward(
        self,
        tokens: Tensor,
        coordinates: Tensor,
        *,
        keys: Tensor | None = None,
        key_coordinates: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """`(n, t, c)` to the same. Keys and values come from the tokens, or from `keys`
        `(n, k, c)`.

        coordinates: `(n or 1, t, 3)`; hidden: `(n, t or 1, k)`, minus infinity where a
        key must not be seen, otherwise 0.
        """
        query, key, value, bias = self._parts(
            tokens, coordinates, keys, key_coordinates
        )
        query = query.to(value.dtype)
        key = key.to(value.dtype)
        hidden = None if hidden is None else hidden[:, None]
        bias = None if bias is None else bias.to(value.dtype)
        if bias is not None and is_small(query, key):
            out = attended_in_full(query, key, value, bias, hidden)
        else:
            added = [part for part in (bias, hidden) if part is not None]
            shown = sum(added[1:], start=added[0]).to(value.dtype) if added else None
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=shown)
        projected: Tensor = self.project(out.transpose(1, 2).flatten(2))
        return projected

    def weights(
        self,
        tokens: Tensor,
        coordinates: Tensor,
        *,
        keys: Tensor | None = None,
        key_coordinates: Tensor | None = None,
    ) -> Tensor:
        """Attention weights of `forward` averaged over the heads, `(n, t, k)`: for
        pictures, not for training.
        """
        query, key, _, bias = self._parts(tokens, coordinates, keys, key_coordinates)
        logits = query.float() @ key.float().transpose(-1, -2) / HEAD_DIM**0.5
        if bias is not None:
            logits = logits + bias
        averaged: Tensor = logits.softmax(-1).mean(1)
        return averaged

    def _parts(
        self,
        tokens: Tensor,
        coordinates: Tensor,
        keys: Tensor | None,
        key_coordinates: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Queries, keys (both normalised) and values `(n, heads, t or k, d)`; bias of
        the logits `(n or 1, heads, t, k)`.
        """
        key_coordinates = coordinates if key_coordinates is None else key_coordinates
        query, key, value = map(self._heads, self._projected(tokens, keys))
        query = self.query_norm(query)
        key = self.key_norm(key)
        if self.position_bias is not None:
            return query, key, value, self.position_bias(coordinates, key_coordinates)
        query = rotate(query, coordinates[:, None])
        key = rotate(key, key_coordinates[:, None])
        return query, key, value, None

    def _projected(self, tokens: Tensor, keys: Tensor | None) -> tuple[Tensor, ...]:
        """Queries of the tokens, keys and values; on a GPU by one product, where all are
        of the same tokens.
        """
        if keys is None and tokens.is_cuda:
            weights = (self.to_query.weight, self.to_key_value.weight)
            return F.linear(tokens, torch.cat(weights)).chunk(3, dim=-1)
        query = self.to_query(tokens)
        keys = tokens if keys is None else keys
        return query, *self.to_key_value(keys).chunk(2, dim=-1)

    def _heads(self, x: Tensor) -> Tensor:
        """`(n, t, c)` to `(n, heads, t, d)`."""
        heads: Tensor = x.unflatten(-1, (self.heads, HEAD_DIM)).transpose(1, 2)
        return heads


class TransformerBlock3D(nn.Module):
    """Pre-norm attention and feed-forward layers with layer scale and stochastic depth,
    on `(b, c, z, y, x)`.

    partition: "global" (all tokens), "window", "shifted" (windows moved by half) or
    "grid" (tokens spread evenly over the whole map, as in MaxViT, Tu et al. 2022).
    position_bias: a learnt bias instead of rotary positions; for windows.
    """

    def __init__(
        self,
        channels: int,
        partition: Partition,
        *,
        window: int = WINDOW,
        drop_path: float = 0.0,
        position_bias: bool = False,
    ) -> None:
        if position_bias and partition not in ("window", "shifted"):
            raise ValueError(
                "a position bias is for windows, whose tokens are near each other, not "
                f"for '{partition}'"
            )
        super().__init__()
        self.partition = partition
        self.window = window
        self.attention_norm = LayerNorm(channels)
        self.feed_norm = LayerNorm(channels)
        self.attention = MultiHeadSelfAttention3D(
            channels, window=window if position_bias else None
        )
        self.feed = SwiGLU(channels)
        self.attention_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.feed_scale = nn.Parameter(torch.full((channels,), LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        grid = (x.shape[2], x.shape[3], x.shape[4])
        tokens: Tensor = x.movedim(1, -1).flatten(1, 3)  # (b, n, c)
        attended = self.attend(self.attention_norm(tokens), grid)
        attended = self.drop_path(attended)
        tokens = with_branch(tokens, self.attention_scale, attended)
        fed = self.drop_path(self.feed(self.feed_norm(tokens)))
        tokens = with_branch(tokens, self.feed_scale, fed)
        out: Tensor = tokens.reshape(x.shape[0], *grid, -1).movedim(-1, 1).to(x.dtype)
        return out

    def attend(self, tokens: Tensor, grid: TokenGrid) -> Tensor:
        """Attention within each group of tokens, `(b, n, c)` to the same."""
        groups = token_groups(grid, self.window, self.partition, tokens.device)
        coordinates = groups.coordinates
        if len(groups.index) == 1:
            whole: Tensor = self.attention(tokens, coordinates)
            return whole
        b = tokens.shape[0]
        parts = moved(tokens, groups.index.flatten(), groups.place)
        parts = parts.unflatten(1, groups.index.shape)
        parts = parts.flatten(0, 1)  # (b * groups, t, c)
        hidden = hidden_members(groups, b)
        out: Tensor = self.attention(parts, coordinates, hidden=hidden)
        members = out.reshape(b, groups.index.numel(), -1)
        if groups.real is not None:
            return members.index_select(1, groups.place)
        return moved(members, groups.place, groups.index.flatten())


class SwinTransformerBlock3D(nn.Sequential):
    """Attention in windows, then in windows shifted by half their size, with a bias by
    relative position (Liu et al. 2021).

    Windows that the border cuts are filled up with masked tokens: none wraps round to
    the opposite side of the image.
    """

    def __init__(
        self, channels: int, *, window: int = WINDOW, drop_path: float = 0.0
    ) -> None:
        block = partial(
            TransformerBlock3D,
            channels,
            window=window,
            drop_path=drop_path,
            position_bias=True,
        )
        super().__init__(block("window"), block("shifted"))
