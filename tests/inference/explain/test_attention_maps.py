import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.inference.explain import attention_maps
from trivox.inference.explain.attention_maps import (
    Rows,
    SeenBlock,
    look,
    measure_attention,
    one_hot,
    rollout,
    row_of,
    seen_blocks,
    spread,
    token_at,
    without_attention,
)
from trivox.inference.explain.window import window_around, window_logits
from trivox.networks.attention import (
    HEAD_DIM,
    TransformerBlock3D,
    grid_coordinates,
    token_groups,
)
from trivox.networks.deformable import DeformableAttention3D
from trivox.networks.registry import build_network, patch_family

few = settings(max_examples=15, deadline=None, derandomize=True)
grids = st.tuples(*[st.integers(1, 7)] * 3)
KINDS = ["global", "window", "shifted", "grid", "deformable"]
CPU = torch.device("cpu")


def seen(kind, grid, *, heads=1, seed=0):
    """A block with random weights (wandering points included) and a random map."""
    torch.manual_seed(seed)
    width = heads * HEAD_DIM
    block = (
        DeformableAttention3D(width)
        if kind == "deformable"
        else TransformerBlock3D(width, kind, window=3)
    )
    if kind == "deformable":
        torch.nn.init.normal_(block.offsets[-1].weight)
    return SeenBlock(0, block.eval(), torch.randn(width, *grid))


def dense(block):
    n = math.prod(block.grid)
    return look(torch.eye(n), block)


@few
@given(kind=st.sampled_from(KINDS), grid=grids)
def test_rows_are_the_attention_that_the_block_uses(kind, grid):
    """With one head, weights times values and the projection are what the block adds to
    its tokens.
    """
    block = seen(kind, grid)
    inner = block.block
    tokens = block.features.flatten(1).T[None]
    with torch.no_grad():
        normed = inner.attention_norm(tokens)
        value = inner.attention.to_key_value(normed).chunk(2, dim=-1)[1][0]
        found = inner.attention.project(dense(block) @ value)
        used = (inner._attend if kind == "deformable" else inner.attend)(normed, grid)[
            0
        ]
    torch.testing.assert_close(found, used, atol=1e-5, rtol=1e-4)


@few
@given(kind=st.sampled_from(KINDS), grid=grids)
def test_every_token_asks_once_and_its_weights_sum_to_one(kind, grid):
    rows = list(seen(kind, grid, heads=2).rows())
    assert sorted(torch.cat([part.queries for part in rows]).tolist()) == list(
        range(math.prod(grid))
    )
    for part in rows:
        torch.testing.assert_close(part.weights.sum(1), torch.ones(len(part.queries)))


@pytest.mark.parametrize("kind", ["window", "shifted", "grid"])
def test_a_token_gets_nothing_from_outside_its_window(kind):
    grid = (5, 7, 4)
    matrix = dense(seen(kind, grid))
    groups = token_groups(grid, 3, kind, CPU)
    for number, members in enumerate(groups.index):
        group = members if groups.real is None else members[groups.real[number]]
        others = torch.ones(matrix.shape[1], dtype=torch.bool)
        others[group] = False
        assert len(group) < len(matrix)
        assert bool((matrix[group][:, group] > 0).all())
        assert bool((matrix[group][:, others] == 0).all())


@few
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3), grid=grids)
def test_rollout_is_the_product_of_half_attention_half_identity(kinds, grid):
    blocks = [seen(kind, grid, seed=seed) for seed, kind in enumerate(kinds)]
    n = math.prod(grid)
    expected = torch.eye(n)
    for block in blocks:  # the first block acts first
        expected = (0.5 * dense(block) + 0.5 * torch.eye(n)) @ expected
    found = rollout(torch.eye(n), blocks)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close(found.sum(1), torch.ones(n))
    torch.testing.assert_close(
        rollout(one_hot(n - 1, grid, CPU), blocks), found[n - 1 :]
    )


@dataclass(frozen=True)
class Identity:
    """A block whose tokens look at themselves alone."""

    grid: tuple[int, int, int]

    def rows(self):
        n = math.prod(self.grid)
        yield Rows(torch.arange(n), torch.eye(n), grid_coordinates(self.grid))


def test_identity_attention_gives_identity_rollout():
    n = 2 * 3 * 4
    torch.testing.assert_close(
        rollout(torch.eye(n), [Identity((2, 3, 4))] * 3), torch.eye(n)
    )


def test_rows_in_parts_are_the_rows(monkeypatch):
    block = seen("window", (4, 5, 3), heads=2)
    whole = dense(block)
    monkeypatch.setattr(attention_maps, "WEIGHTS_AT_ONCE", 50)
    assert max(len(part.queries) for part in block.rows()) <= 2
    torch.testing.assert_close(dense(block), whole)


def test_weights_between_tokens_are_spread_trilinearly():
    weights = torch.tensor([[1.0, 2.0]])
    places = torch.tensor([[0.25, 1.0, 0.0], [2.0, 1.0, 1.5]])
    found = spread(weights, places, (3, 2, 3)).reshape(3, 2, 3)
    assert found[0, 1, 0] == pytest.approx(0.75)
    assert found[1, 1, 0] == pytest.approx(0.25)
    assert found[2, 1].tolist() == pytest.approx([0, 1, 1])
    assert found.sum() == pytest.approx(3)


def test_a_row_belongs_to_its_token():
    block = seen("deformable", (4, 4, 4))
    places, weights = row_of(block, 17)
    torch.testing.assert_close(
        spread(weights[None], places, block.grid)[0], dense(block)[17]
    )
    assert torch.equal(places, block.points)
    assert seen("global", (2, 2, 2)).points is None


def test_a_voxel_belongs_to_the_token_that_covers_it():
    assert token_at((0, 7, 8), (8, 8, 8), (2, 1, 2)) == 1
    assert token_at((15, 0, 0), (8, 8, 8), (2, 1, 2)) == 2
    assert (
        token_at((4, 4, 4), (2, 2, 2), (2, 2, 2)) == 7
    )  # a border that the network rounds off


# -- numbers ---------------------------------------------------------------------------
def test_indifferent_attention_has_the_largest_entropy_and_the_reach_of_its_window():
    block = seen("global", (3, 4, 2))
    torch.nn.init.zeros_(
        block.block.attention.query_norm.weight
    )  # all queries alike: nothing is preferred
    numbers = measure_attention(block, (2.0, 1.0, 3.0))
    places = grid_coordinates((3, 4, 2)) * torch.tensor([2.0, 1.0, 3.0])
    assert numbers.keys == 24
    assert numbers.entropy == pytest.approx(math.log(24), rel=1e-5)
    assert numbers.relative_entropy == pytest.approx(1, rel=1e-5)
    assert numbers.distance_mm == pytest.approx(
        torch.cdist(places, places).mean().item(), rel=1e-5
    )
    assert numbers.distance_mm == pytest.approx(numbers.uniform_distance_mm, rel=1e-5)


def test_a_token_that_sees_itself_alone_has_no_entropy_and_no_reach():
    numbers = measure_attention(seen("global", (1, 1, 1)), (1.0, 1.0, 1.0))
    assert (numbers.entropy, numbers.relative_entropy, numbers.distance_mm) == (
        0,
        None,
        0,
    )


def test_windows_reach_less_far_than_grids():
    near, far = (
        measure_attention(seen(kind, (6, 6, 6)), (1.0, 1.0, 1.0))
        for kind in ("window", "grid")
    )
    assert near.keys == far.keys == 27
    assert near.uniform_distance_mm < 0.6 * far.uniform_distance_mm


# -- in a network ----------------------------------------------------------------------
def hybrid(**options):
    torch.manual_seed(0)
    topology, _ = patch_family("hybrid-lite").shape((32, 24, 32), (1.0, 1.0, 1.0))
    return build_network(
        "hybrid-lite", topology, channels=1, outputs=2, options=options
    ).eval()


@pytest.fixture(scope="module")
def window():
    return window_around(
        torch.randn(1, 32, 24, 32, generator=torch.Generator().manual_seed(0)),
        (32, 24, 32),
        (9, 9, 9),
    )


def test_blocks_are_seen_in_the_order_that_they_run(window):
    network = hybrid(attention="deformable")
    blocks = seen_blocks(network, window)
    assert [block.stage for block in blocks] == [3, 3, 4, 4, 4, 4, 4, 4]
    assert [block.kind for block in blocks] == ["window", "deformable", *["global"] * 6]
    assert [blocks[0].grid, blocks[-1].grid] == [(4, 3, 4), (2, 3, 2)]
    with torch.no_grad():
        passed_on = blocks[0].block(blocks[0].features[None])[0]
    torch.testing.assert_close(passed_on, blocks[1].features)
    assert not any(block.block._forward_pre_hooks for block in blocks)


def test_a_network_without_attention_has_no_blocks(window):
    assert seen_blocks(hybrid(attention="none"), window) == []
    assert seen_blocks(torch.nn.Conv3d(1, 2, 1), window) == []


@pytest.mark.parametrize("kind", ["default", "swin", "deformable"])
def test_without_attention_is_the_network_whose_blocks_do_nothing(window, kind):
    network = hybrid(attention=kind)
    whole = window_logits(network, window)
    with without_attention(network):
        without = window_logits(network, window)
    assert not torch.allclose(whole, without, atol=1e-3)
    torch.testing.assert_close(
        window_logits(network, window), whole
    )  # and it comes back
    for stage in network.encoder:
        stage.attention = torch.nn.Identity()
    torch.testing.assert_close(window_logits(network, window), without)
