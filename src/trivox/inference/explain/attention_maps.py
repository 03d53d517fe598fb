"""Where a network looks: attention maps, attention rollout, and what the prediction
loses without any attention.

Attention is never held as a whole: rows come in parts, and only what belongs to the
asked tokens is kept. Tokens of a stage are numbered as `z * y * x` voxels of its
feature map are; the weights are means over the heads.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trivox.inference.explain.window import Window
from trivox.networks.attention import (
    TokenGrid,
    TransformerBlock3D,
    grid_coordinates,
    token_groups,
)
from trivox.networks.deformable import DeformableAttention3D

BLOCKS = (TransformerBlock3D, DeformableAttention3D)
WEIGHTS_AT_ONCE = 2**23
"""Weights of all heads computed together: 32 MB."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of an attention matrix: `weights` `(q, k)` of tokens `queries` `(q,)` on
    keys at `places` `(k, 3)` in tokens.
    """

    queries: Tensor
    weights: Tensor
    places: Tensor


@dataclass(frozen=True, eq=False)
class SeenBlock:
    """A transformer block and the feature map `(c, z, y, x)` that it received.

    stage: of the encoder, finest is 0.
    """

    stage: int
    block: TransformerBlock3D | DeformableAttention3D
    features: Tensor

    @property
    def kind(self) -> str:
        """Which tokens attend to each other: global, window, shifted, grid or
        deformable.
        """
        if isinstance(self.block, TransformerBlock3D):
            return self.block.partition
        return "deformable"

    @property
    def grid(self) -> TokenGrid:
        """Tokens along each axis."""
        _, z, y, x = self.features.shape
        return z, y, x

    @property
    def points(self) -> Tensor | None:
        """Where deformable attention takes its keys from, `(k, 3)` in tokens."""
        if isinstance(self.block, TransformerBlock3D):
            return None
        _, places = self._keys(self.block)
        return places[0]

    @torch.no_grad()
    def rows(self) -> Iterator[Rows]:
        """All rows of the block's attention matrix, in parts; keys outside of a token's
        group are left out.
        """
        tokens = self._tokens()
        attention = self.block.attention
        places = grid_coordinates(self.grid, tokens.device)
        for members in self._groups():
            if isinstance(self.block, TransformerBlock3D):
                keys = tokens[:, members]
                key_places = places[members][None]
            else:
                keys, key_places = self._keys(self.block)
            together = WEIGHTS_AT_ONCE // (attention.heads * keys.shape[1])
            for part in members.split(max(1, together)):
                weights = attention.weights(
                    tokens[:, part],
                    places[part][None],
                    keys=keys,
                    key_coordinates=key_places,
                )
                yield Rows(part, weights[0], key_places[0])

    def _tokens(self) -> Tensor:
        tokens = self.features.flatten(1).T[None]  # (1, n, c)
        normed: Tensor = self.block.attention_norm(tokens)
        return normed

    def _keys(self, block: DeformableAttention3D) -> tuple[Tensor, Tensor]:
        return block.keys(self._tokens(), self.grid)

    def _groups(self) -> Iterator[Tensor]:
        """Tokens that attend to each other, without padding."""
        if not isinstance(self.block, TransformerBlock3D):
            yield torch.arange(math.prod(self.grid), device=self.features.device)
            return
        groups = token_groups(
            self.grid, self.block.window, self.block.partition, self.features.device
        )
        for number, members in enumerate(groups.index):
            yield members if groups.real is None else members[groups.real[number]]


@torch.no_grad()
def seen_blocks(network: nn.Module, window: Window) -> list[SeenBlock]:
    """The transformer blocks of the encoder in the order that they run, with what they
    received for a window.
    """
    seen: list[SeenBlock] = []

    def remember(
        stage: int, block: TransformerBlock3D | DeformableAttention3D
    ) -> RemovableHandle:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen.append(SeenBlock(stage, block, inputs[0][0].float().clone()))

        return block.register_forward_pre_hook(note)

    stages: list[nn.Module] = getattr(network, "encoder_stages", list)()
    handles: list[RemovableHandle] = []
    for number, stage in enumerate(stages):
        blocks = [module for module in stage.modules() if isinstance(module, BLOCKS)]
        handles += [remember(number, block) for block in blocks]
    try:
        network(window.image[None])
    finally:
        for handle in handles:
            handle.remove()
    return seen


@contextmanager
def without_attention(network: nn.Module) -> Iterator[None]:
    """Every transformer block passes its input on unchanged (attention and feed-forward
    layers are skipped).
    """
    blocks = [module for module in network.modules() if isinstance(module, BLOCKS)]
    handles = [
        block.register_forward_hook(lambda _, inputs, __: inputs[0]) for block in blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def token_at(voxel: Sequence[int], reduction: Sequence[int], grid: TokenGrid) -> int:
    """The token whose block of `reduction` voxels covers `voxel`."""
    z, y, x = (
        min(v // r, n - 1) for v, r, n in zip(voxel, reduction, grid, strict=True)
    )
    return (z * grid[1] + y) * grid[2] + x


def one_hot(token: int, grid: TokenGrid, device: torch.device) -> Tensor:
    """All attention on one token, `(1, n)`: where a rollout starts."""
    start = torch.zeros(1, math.prod(grid), device=device)
    start[0, token] = 1
    return start


def row_of(block: SeenBlock, token: int) -> tuple[Tensor, Tensor]:
    """Places of the keys that a token sees, `(k, 3)` in tokens, and its weights on
    them, `(k,)`.
    """
    rows = next(rows for rows in block.rows() if bool((rows.queries == token).any()))
    return rows.places, rows.weights[rows.queries == token][0]


def look(start: Tensor, block: SeenBlock) -> Tensor:
    """`start @ A` for the attention matrix A of a block: what tokens weighted with
    `start` `(r, n)` look at.
    """
    attended = torch.zeros_like(start)
    for rows in block.rows():
        attended += spread(
            start[:, rows.queries] @ rows.weights, rows.places, block.grid
        )
    return attended


def rollout(start: Tensor, blocks: Sequence[SeenBlock]) -> Tensor:
    """Attention rollout (Abnar & Zuidema 2020): `start` times the blocks from last to
    first, each `B = 0.5 A + 0.5 I`, `(r, n)` to the same.

    The half for the skip connection is the paper's convention; how strongly a block
    really acts (its layer scale) does not enter, and neither do the feed-forward
    layers.
    """
    for block in reversed(blocks):
        start = 0.5 * (start + look(start, block))
    return start


def spread(weights: Tensor, places: Tensor, grid: TokenGrid) -> Tensor:
    """Weights `(r, k)` at `places` `(k, 3)`, in tokens, as weights on whole tokens `(r,
    n)`: trilinear, sums stay.
    """
    below = places.floor()
    share = places - below
    out = torch.zeros(len(weights), math.prod(grid), device=weights.device)
    limit = torch.tensor(grid, device=places.device) - 1
    for corner in product((0, 1), repeat=3):
        offset = torch.tensor(corner, device=places.device)
        part = torch.where(offset > 0, share, 1 - share).prod(1)
        if not bool(part.any()):
            continue
        z, y, x = torch.minimum((below + offset).long(), limit).unbind(1)
        out.index_add_(1, (z * grid[1] + y) * grid[2] + x, weights * part)
    return out


@dataclass(frozen=True)
class AttentionNumbers:
    """Means over the tokens of a block.

    keys: that a token can see; entropy: in nats; relative_entropy: share of the largest
    possible, None with one key; distance_mm: how far a token looks;
    uniform_distance_mm: how far it would if it looked at all its keys alike.
    """

    keys: float
    entropy: float
    relative_entropy: float | None
    distance_mm: float
    uniform_distance_mm: float


def measure_attention(block: SeenBlock, token_mm: Sequence[float]) -> AttentionNumbers:
    """Entropy and reach of a block's head-averaged attention; token_mm: size of a token
    in mm `(z, y, x)`.
    """
    scale = torch.tensor(token_mm, dtype=torch.float32, device=block.features.device)
    coordinates = grid_coordinates(block.grid, block.features.device) * scale
    totals = torch.zeros(5, dtype=torch.float64)
    for rows in block.rows():
        distance = torch.cdist(coordinates[rows.queries], rows.places * scale)
        keys = rows.weights.shape[1]
        entropy = -torch.xlogy(rows.weights, rows.weights).sum(1)
        relative = torch.full_like(entropy, torch.nan)
        if keys > 1:
            relative = entropy / math.log(keys)
        totals += torch.stack(
            [
                torch.full_like(entropy, keys).sum(),
                entropy.sum(),
                relative.sum(),
                (rows.weights * distance).sum(1).sum(),
                distance.mean(1).sum(),
            ]
        ).cpu()
    each_token = (totals / math.prod(block.grid)).tolist()
    keys, mean_entropy, mean_relative, reach, uniform = each_token
    return AttentionNumbers(
        keys=keys,
        entropy=mean_entropy,
        relative_entropy=None if math.isnan(mean_relative) else mean_relative,
        distance_mm=reach,
        uniform_distance_mm=uniform,
    )
