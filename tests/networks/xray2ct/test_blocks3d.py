"""Blocks of the 3-D U-Net: how they begin and what reaches what."""

import pytest
import torch

from trivox.networks.attention import SwinTransformerBlock3D
from trivox.networks.layers import parameters_of
from trivox.networks.xray2ct.blocks3d import (
    AttentionGate3D,
    DecoderBlock3D,
    EncoderBlock3D,
    ResidualDenseBlock3D,
    TransformerEnhancedBlock3D,
)


def features(channels, *, size=4, seed=0):
    return torch.randn(
        2, channels, size, size, size, generator=torch.Generator().manual_seed(seed)
    )


def test_a_residual_dense_block_begins_as_the_identity():
    x = features(16)
    assert torch.equal(ResidualDenseBlock3D(16, layers=3, growth=8)(x), x)


def test_each_layer_of_a_dense_block_sees_the_input_and_all_earlier_layers():
    block = ResidualDenseBlock3D(16, layers=3, growth=8)
    assert [layer[0].in_channels for layer in block.layers] == [16, 24, 32]
    convolutions = 27 * 8 * (16 + 24 + 32) + 3 * 2 * 8
    assert parameters_of(block) == convolutions + (16 + 3 * 8) * 16 + 16
    torch.nn.init.normal_(block.fuse.weight)
    used = torch.autograd.grad(
        block(features(16)).square().sum(), [layer[0].weight for layer in block.layers]
    )
    assert all(gradient.abs().min() > 0 for gradient in used)


@pytest.mark.parametrize("branch", ["convolution", "attention"])
def test_both_branches_of_a_transformer_enhanced_block_reach_the_output(branch):
    block = TransformerEnhancedBlock3D(16, window=4).eval()
    x = features(16)
    before = block(x)
    columns = slice(0, 16) if branch == "convolution" else slice(16, None)
    with torch.no_grad():
        block.fuse.weight[:, columns] = 0
    assert (block(x) - before).abs().max() > 1e-2


def test_its_attention_is_the_shifted_window_block_and_minds_the_window():
    x = features(16, size=8)
    results = []
    for window in (2, 4):
        torch.manual_seed(0)
        block = TransformerEnhancedBlock3D(16, window=window)
        assert isinstance(block.attention, SwinTransformerBlock3D)
        results.append(block(x))
    assert (results[0] - results[1]).abs().max() > 1e-3


def test_attention_alone_reaches_as_far_as_the_shifted_windows():
    block = TransformerEnhancedBlock3D(16, window=4).eval()
    with torch.no_grad():
        block.fuse.weight[:, :16] = 0  # the convolution's norm would reach everywhere
    x = features(16, size=8)
    changed = x.clone()
    changed[:, :, 0, 0, 0] *= -1
    reached = (block(changed) - block(x)).abs().amax(1)[0] > 1e-6
    assert reached[3, 3, 3]  # the same window
    assert reached[5, 5, 5]  # through the window that was shifted by half
    assert not reached[6:].any()  # a shifted window ends there
    assert not reached[7, 7, 7]  # never the opposite corner: windows are not cyclic


def test_gates_lie_between_0_and_1_and_vary_over_the_volume():
    gate = AttentionGate3D(16, 8, inner=8)
    weights = gate.gate(features(16), features(8, seed=1))
    assert weights.shape == (2, 1, 4, 4, 4)
    assert 0 < weights.min() < weights.max() < 1
    torch.testing.assert_close(
        gate(features(16), features(8, seed=1)), features(16) * weights
    )


def test_a_closed_gate_is_a_skip_of_zeros():
    decoder = DecoderBlock3D(24, 16, layers=2, growth=8).eval()
    coarser = features(24)
    skip = features(16, size=8)
    open_output = decoder(coarser, skip)
    torch.nn.init.constant_(decoder.gate.weight.bias, -1e4)
    closed = decoder(coarser, skip)
    assert (closed - open_output).abs().max() > 1e-2
    torch.testing.assert_close(closed, decoder(coarser, torch.zeros_like(skip)))


def test_blocks_keep_width_and_size_and_decoders_double_the_size():
    x = features(16)
    assert EncoderBlock3D(16, layers=2, growth=8, window=4)(x).shape == x.shape
    decoder = DecoderBlock3D(24, 16, layers=2, growth=8, window=4)
    assert decoder(features(24), features(16, size=8)).shape == (2, 16, 8, 8, 8)
