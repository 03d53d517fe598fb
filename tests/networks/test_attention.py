"""Attention: positions, groups of tokens, and who sees whom."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.networks.attention import (
    HEAD_DIM,
    MultiHeadSelfAttention3D,
    RelativePositionBias3D,
    SwinTransformerBlock3D,
    TransformerBlock3D,
    grid_coordinates,
    rotate,
    token_groups,
)
from trivox.networks.deformable import DeformableAttention3D

CPU = torch.device("cpu")
PARTITIONS = ["global", "window", "shifted", "grid"]


def tokens(n, channels=HEAD_DIM, batch=1, seed=0):
    return torch.randn(
        batch, n, channels, generator=torch.Generator().manual_seed(seed)
    )


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    one=st.tuples(*(st.integers(0, 30),) * 3),
    other=st.tuples(*(st.integers(0, 30),) * 3),
    shift=st.tuples(*(st.integers(-20, 20),) * 3),
)
def test_rotary_positions_are_relative(one, other, shift):
    """The product of a rotated query and a rotated key depends on the difference of
    their coordinates alone.
    """
    query, key = (tokens(1, seed=seed)[0].double() for seed in (1, 2))
    places = torch.tensor([one, other], dtype=torch.float32)
    here = (rotate(query, places[:1]) * rotate(key, places[1:])).sum()
    moved = places + torch.tensor(shift)
    there = (rotate(query, moved[:1]) * rotate(key, moved[1:])).sum()
    torch.testing.assert_close(here, there, atol=2e-3, rtol=1e-3)


def test_rotation_keeps_lengths_and_tells_positions_apart_along_every_axis():
    x = tokens(1)[0].expand(2, -1)
    for axis in range(3):
        places = torch.zeros(2, 3)
        places[1, axis] = 3
        turned = rotate(x, places)
        torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
        assert not torch.allclose(turned[0], turned[1])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    grid=st.tuples(*(st.integers(1, 26),) * 3),
    window=st.sampled_from([2, 4, 8]),
    partition=st.sampled_from(PARTITIONS),
)
def test_every_token_belongs_to_exactly_one_group_and_returns_to_its_place(
    grid, window, partition
):
    groups = token_groups(grid, window, partition, CPU)
    real = (
        torch.ones_like(groups.index, dtype=torch.bool)
        if groups.real is None
        else groups.real
    )
    n = grid[0] * grid[1] * grid[2]
    assert sorted(groups.index[real].tolist()) == list(range(n))
    assert torch.equal(groups.index.flatten()[groups.place], torch.arange(n))
    assert bool(real.any(1).all())
    if partition != "global":
        assert groups.index.shape[1] <= window**3


@pytest.mark.parametrize("partition", PARTITIONS)
def test_the_members_of_all_groups_lie_alike(partition):
    grid = (16, 9, 5)
    groups = token_groups(grid, 4, partition, CPU)
    places = grid_coordinates(grid)
    (coordinates,) = groups.coordinates
    for number, members in enumerate(groups.index):
        real = slice(None) if groups.real is None else groups.real[number]
        between = places[members[real]] - places[members[real]][:1]
        assert torch.equal(coordinates[real] - coordinates[real][:1], between)


def test_a_grid_first_seen_in_inference_can_be_trained_on_later():
    block = TransformerBlock3D(HEAD_DIM, "window", window=2)
    with torch.inference_mode():
        block(torch.zeros(1, HEAD_DIM, 5, 4, 6))
    block(torch.zeros(1, HEAD_DIM, 5, 4, 6)).sum().backward()
    assert block.attention_scale.grad is not None


def test_windows_are_neighbours_and_grids_are_spread_over_the_whole_map():
    coordinates = grid_coordinates((16, 16, 16))
    for partition, reach in (("window", 7), ("grid", 14)):
        index = token_groups((16, 16, 16), 8, partition, CPU).index
        extent = coordinates[index].amax(1) - coordinates[index].amin(1)
        assert bool((extent == reach).all()), partition


def test_attention_equals_the_softmax_formula():
    attention = MultiHeadSelfAttention3D(2 * HEAD_DIM).eval()
    x = tokens(12, 2 * HEAD_DIM, batch=2)
    places = grid_coordinates((2, 2, 3))[None]

    def heads(t):
        return t.unflatten(-1, (2, HEAD_DIM)).transpose(1, 2)

    query = rotate(attention.query_norm(heads(attention.to_query(x))), places[:, None])
    key, value = (heads(part) for part in attention.to_key_value(x).chunk(2, dim=-1))
    key = rotate(attention.key_norm(key), places[:, None])
    weights = (query @ key.transpose(-1, -2) / HEAD_DIM**0.5).softmax(-1)
    expected = attention.project((weights @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, places), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        attention.weights(x, places), weights.mean(1), rtol=1e-4, atol=1e-5
    )


def test_the_whole_map_shifted_by_some_voxels_is_attended_alike():
    attention = MultiHeadSelfAttention3D(HEAD_DIM).eval()
    x = tokens(8)
    places = grid_coordinates((2, 2, 2))[None]
    torch.testing.assert_close(
        attention(x, places), attention(x, places + 11), rtol=1e-3, atol=1e-4
    )


def test_the_position_bias_depends_on_the_offset_alone_and_has_a_number_for_each():
    bias = RelativePositionBias3D(2, 3)
    torch.nn.init.normal_(bias.table)
    places = grid_coordinates((3, 3, 3))
    table = bias(places, places).detach()  # (2, 27, 27)
    torch.testing.assert_close(bias(places + 40, places + 40), table, rtol=0, atol=0)
    offsets = (places[:, None] - places[None]).reshape(-1, 3)
    for head in table.flatten(1):
        of = {}
        for offset, value in zip(offsets.tolist(), head.tolist(), strict=True):
            assert of.setdefault(tuple(offset), value) == value
        assert len(of) == 5**3 == len(set(of.values()))


def test_the_position_bias_equals_that_of_monai():
    swin = pytest.importorskip(
        "monai.networks.nets.swin_unetr", reason="MONAI is not installed"
    )
    theirs = swin.WindowAttention(2 * HEAD_DIM, num_heads=2, window_size=(4, 4, 4))
    bias = RelativePositionBias3D(2, 4)
    with torch.no_grad():
        bias.table.copy_(theirs.relative_position_bias_table.flatten())
    places = grid_coordinates((4, 4, 4))
    expected = theirs.relative_position_bias_table[
        theirs.relative_position_index.flatten()
    ].reshape(64, 64, 2)
    torch.testing.assert_close(
        bias(places, places), expected.permute(2, 0, 1), rtol=0, atol=0
    )


def test_attention_with_a_position_bias_equals_the_softmax_formula_with_and_without_a_mask():
    attention = MultiHeadSelfAttention3D(2 * HEAD_DIM, window=3).eval()
    x = tokens(12, 2 * HEAD_DIM, batch=2)
    torch.nn.init.normal_(attention.position_bias.table)
    places = grid_coordinates((2, 2, 3))[None]

    def heads(t):
        return t.unflatten(-1, (2, HEAD_DIM)).transpose(1, 2)

    key, value = (heads(part) for part in attention.to_key_value(x).chunk(2, dim=-1))
    query = attention.query_norm(heads(attention.to_query(x)))
    key = attention.key_norm(key)
    logits = query @ key.transpose(-1, -2) / HEAD_DIM**0.5
    logits = logits + attention.position_bias(places, places)
    torch.testing.assert_close(
        attention.weights(x, places), logits.softmax(-1).mean(1), rtol=1e-4, atol=1e-5
    )
    last = torch.zeros(2, 1, 12)
    last[..., 7:] = -torch.inf
    for hidden, scores in ((None, logits), (last, logits + last[:, None])):
        attended = scores.softmax(-1) @ value
        expected = attention.project(attended.transpose(1, 2).flatten(2))
        torch.testing.assert_close(
            attention(x, places, hidden=hidden), expected, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("partition", ["window", "shifted"])
@pytest.mark.parametrize("grid", [(8, 8, 8), (9, 5, 3), (3, 3, 3), (1, 12, 7)])
def test_blocks_with_a_position_bias_learn_it_on_any_grid_and_in_bf16(partition, grid):
    torch.manual_seed(0)
    block = TransformerBlock3D(2 * HEAD_DIM, partition, window=4, position_bias=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = block(torch.randn(2, 2 * HEAD_DIM, *grid))
    out.float().square().sum().backward()
    moved = block.attention.position_bias.table.grad
    assert bool(torch.isfinite(moved).all())
    assert float(moved.abs().sum()) > 0


def test_a_position_bias_is_refused_where_tokens_lie_far_from_each_other():
    with pytest.raises(ValueError, match="for windows"):
        TransformerBlock3D(HEAD_DIM, "grid", position_bias=True)


def test_a_swin_block_has_a_position_bias_that_weight_decay_leaves_alone():
    tables = [
        p
        for name, p in SwinTransformerBlock3D(HEAD_DIM, window=4).named_parameters()
        if "position_bias" in name
    ]
    # Those of one dimension are not decayed.
    assert [table.shape for table in tables] == [(7**3,), (7**3,)]


def reached(block, grid, source):
    """Which voxels of the output change with the voxel `source` of the input."""
    x = torch.randn(1, HEAD_DIM, *grid, generator=torch.Generator().manual_seed(3))
    changed = x.clone()
    # A norm would take an offset of all channels away.
    changed[(0, slice(None), *source)] *= -1
    with torch.no_grad():
        return (block(changed) - block(x)).abs().amax(1)[0] > 1e-6


def box(grid, *sides):
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


def test_a_window_sees_itself_only():
    block = TransformerBlock3D(HEAD_DIM, "window", window=4).eval()
    assert torch.equal(
        reached(block, (8, 8, 8), (1, 5, 6)), box((8, 8, 8), (0, 4), (4, 8), (4, 8))
    )


def test_a_shifted_window_sees_its_window_only_and_never_the_opposite_side():
    block = TransformerBlock3D(HEAD_DIM, "shifted", window=4).eval()
    assert torch.equal(
        reached(block, (8, 8, 8), (3, 3, 3)), box((8, 8, 8), (2, 6), (2, 6), (2, 6))
    )
    assert torch.equal(
        reached(block, (8, 8, 8), (0, 0, 7)), box((8, 8, 8), (0, 2), (0, 2), (6, 8))
    )


def test_windows_then_shifted_windows_reach_across_the_border_of_a_window():
    block = SwinTransformerBlock3D(HEAD_DIM, window=4).eval()
    hit = reached(block, (8, 8, 8), (0, 0, 0))
    assert bool(hit[5, 5, 5])
    assert not bool(hit[7, 7, 7])


def test_a_grid_sees_every_other_token_of_a_map_of_two_windows():
    block = TransformerBlock3D(HEAD_DIM, "grid", window=4).eval()
    expected = torch.zeros(8, 8, 8, dtype=torch.bool)
    expected[1::2, 0::2, 1::2] = True
    assert torch.equal(reached(block, (8, 8, 8), (3, 4, 5)), expected)


def test_global_attention_sees_everything():
    assert bool(
        reached(
            TransformerBlock3D(HEAD_DIM, "global").eval(), (3, 4, 5), (0, 0, 0)
        ).all()
    )


@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize(
    "grid", [(9, 5, 3), (1, 12, 7), (16, 8, 8), (2, 2, 2), (25, 8, 8)]
)
def test_any_grid_will_do_and_padding_leaves_no_trace(partition, grid):
    torch.manual_seed(0)
    block = TransformerBlock3D(HEAD_DIM, partition, window=8)
    x = torch.randn(2, HEAD_DIM, *grid, requires_grad=True)
    out = block(x)
    assert out.shape == x.shape
    out.square().sum().backward()
    assert bool(torch.isfinite(x.grad).all())
    assert all(bool(torch.isfinite(p.grad).all()) for p in block.parameters())
    torch.testing.assert_close(block(x)[:1], block(x[:1]), rtol=1e-4, atol=1e-5)


def test_a_block_whose_scales_are_zero_is_the_identity():
    block = TransformerBlock3D(HEAD_DIM, "window")
    x = torch.randn(1, HEAD_DIM, 4, 4, 4)
    torch.nn.init.zeros_(block.attention_scale)
    torch.nn.init.zeros_(block.feed_scale)
    assert torch.equal(block(x), x)


def test_channels_that_do_not_split_into_heads_are_refused():
    with pytest.raises(ValueError, match="multiple of 48"):
        MultiHeadSelfAttention3D(50)


def test_deformable_attention_starts_as_a_regular_grid():
    block = DeformableAttention3D(HEAD_DIM)
    points = block.points(torch.randn(2, HEAD_DIM, 8, 6, 4))
    assert torch.equal(points[0], points[1])
    expected = grid_coordinates((4, 3, 2)) * 2 + 0.5
    torch.testing.assert_close(points[0], expected)


def test_deformable_points_follow_the_image_stay_inside_it_and_are_learnt():
    torch.manual_seed(0)
    block = DeformableAttention3D(HEAD_DIM)
    torch.nn.init.normal_(block.offsets[-1].weight, std=3.0)
    x = torch.randn(2, HEAD_DIM, 8, 6, 5)
    points = block.points(x)
    assert not torch.allclose(points[0], points[1])
    assert bool((points >= 0).all())
    assert bool((points <= torch.tensor([7.0, 5.0, 4.0])).all())
    block(x).square().sum().backward()
    assert float(block.offsets[-1].weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("grid", [(8, 8, 8), (1, 9, 4), (5, 7, 3)])
def test_deformable_attention_keeps_any_shape(grid):
    x = torch.randn(1, HEAD_DIM, *grid)
    assert DeformableAttention3D(HEAD_DIM)(x).shape == x.shape
