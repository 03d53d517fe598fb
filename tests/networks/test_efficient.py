"""Lean blocks: what they compute, in which layout, and how they begin."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from trivox.networks.efficient import (
    DepthwiseSeparableConv3D,
    DropPath,
    MBConvBlock,
    Pointwise,
    ShuffleAttention3D,
    SqueezeExcitation3D,
)
from trivox.networks.layers import InstanceNorm

CUBE = (3, 3, 3)


def volume(channels=16, size=(4, 5, 6), batch=2, seed=0):
    return torch.randn(
        batch, channels, *size, generator=torch.Generator().manual_seed(seed)
    )


def test_pointwise_is_a_convolution_of_size_one():
    layer = Pointwise(16, 24)
    x = volume()
    expected = F.conv3d(x, layer.weight[:, :, None, None, None], layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x.contiguous(memory_format=torch.channels_last_3d)).is_contiguous(
        memory_format=torch.channels_last_3d
    )


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_the_norm_gives_the_same_values_and_gradients_in_both_layouts(kind):
    norm = InstanceNorm(16)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        norm.zero_grad()
        x = (
            (volume() * 3 + 1)
            .to(kind)
            .contiguous(memory_format=layout)
            .requires_grad_(True)
        )
        out = norm(x)
        assert out.is_contiguous(memory_format=layout)
        (out.float() * volume(seed=1)).sum().backward()
        results.append(
            (
                out.detach().float(),
                x.grad.float(),
                norm.weight.grad.clone(),
                norm.bias.grad.clone(),
            )
        )
    tolerance = 1e-4 if kind == torch.float32 else 5e-2
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_a_separable_convolution_is_depthwise_then_pointwise_with_a_skip_where_the_width_stays():
    layer = DepthwiseSeparableConv3D(16, 16, CUBE)
    x = volume()
    spread = F.conv3d(x, layer.depthwise.weight, padding=1, groups=16)
    mixed = torch.einsum("bczyx,oc->bozyx", spread, layer.pointwise.weight)
    torch.testing.assert_close(
        layer(x), x + F.silu(F.instance_norm(mixed)), rtol=1e-4, atol=1e-4
    )
    assert DepthwiseSeparableConv3D(16, 32, CUBE)(x).shape == (2, 32, 4, 5, 6)
    assert sum(p.numel() for p in layer.parameters()) == 27 * 16 + 16 * 16 + 2 * 16


@pytest.mark.parametrize(
    ("order", "where"), [("expand-first", 64), ("depthwise-first", 16)]
)
def test_an_mbconv_block_filters_at_the_width_its_order_says(order, where):
    block = MBConvBlock(16, CUBE, expansion=4, order=order)
    (depthwise,) = (m for m in block.modules() if isinstance(m, nn.Conv3d))
    assert depthwise.groups == depthwise.out_channels == where
    assert any(isinstance(m, SqueezeExcitation3D) for m in block.modules()) == (
        order == "expand-first"
    )


def test_an_mbconv_block_whose_last_norm_is_zero_is_the_identity():
    block = MBConvBlock(16, CUBE, expansion=3)
    nn.init.zeros_(block.norm.weight)
    torch.testing.assert_close(block(volume()), volume())


def test_squeeze_excitation_scales_whole_channels_by_what_the_whole_image_holds():
    layer = SqueezeExcitation3D(16, 8)
    x = volume()
    gate = layer(x) / x
    assert torch.allclose(gate, gate[:, :, :1, :1, :1].expand_as(gate), atol=1e-5)
    assert bool(((gate > 0) & (gate < 1)).all())
    far = x.clone()
    far[:, :, -1, -1, -1] += 100
    assert not torch.allclose(layer(far)[:, :, 0, 0, 0], layer(x)[:, :, 0, 0, 0])


def test_drop_path_drops_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    layer = DropPath(0.25).train()
    x = torch.ones(4000, 1, 1, 1, 2)
    out = layer(x)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(out[..., 0], out[..., 1])
    assert out.mean() == pytest.approx(1, abs=0.05)
    assert torch.equal(layer.eval()(x), x)


def test_shuffle_attention_starts_as_a_scaled_channel_shuffle():
    layer = ShuffleAttention3D(32, groups=4)
    x = volume(32)
    grouped = x.reshape(2, 4, 2, 4, 4, 5, 6).reshape(2, 32, 4, 5, 6)
    shuffled = (
        grouped.reshape(2, 2, 16, 4, 5, 6).transpose(1, 2).reshape(2, 32, 4, 5, 6)
    )
    torch.testing.assert_close(layer(x), torch.sigmoid(torch.tensor(1.0)) * shuffled)


def test_shuffle_attention_permutes_groups():
    """After the shuffle, neighbouring channels come from different halves: each channel
    moves to a known place.
    """
    layer = ShuffleAttention3D(32, groups=4)
    each = torch.eye(32).reshape(32, 32, 1, 1, 1).expand(-1, -1, 2, 2, 2)
    moved = layer(each)[..., 0, 0, 0] > 0.5
    assert torch.equal(moved.sum(0), torch.ones(32, dtype=torch.long))  # a permutation
    source = moved.long().argmax(0)
    assert source.tolist() == [16 * (i % 2) + i // 2 for i in range(32)]


def test_shuffle_attention_gates_one_half_by_channel_and_the_other_by_place():
    layer = ShuffleAttention3D(16, groups=2)
    x = volume(16, batch=1)
    with torch.no_grad():
        layer.channel_weight.fill_(1.0)
        layer.spatial_weight.fill_(1.0)
        layer.spatial_bias.zero_()
    out = layer(x)
    # The shuffle undone: the two halves of all channels.
    back = torch.cat([out[:, 0::2], out[:, 1::2]], dim=1)
    gate = back / x
    by_channel = [c for c in range(16) if gate[0, c].std() < 1e-4]
    assert len(by_channel) == 8
    assert sum(p.numel() for p in layer.parameters()) == 6 * 4


def test_too_many_groups_are_lowered_until_they_divide_the_channels():
    assert ShuffleAttention3D(96).groups == 8
    assert ShuffleAttention3D(24).groups == 4
    assert ShuffleAttention3D(6).groups == 1
