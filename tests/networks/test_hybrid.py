"""The hybrid: its size, its blocks, its options, and patches of any size."""

import pytest
import torch
from torch import nn

from trivox.errors import RecipeError
from trivox.networks.attention import (
    MultiHeadSelfAttention3D,
    SwinTransformerBlock3D,
    TransformerBlock3D,
)
from trivox.networks.deformable import DeformableAttention3D
from trivox.networks.efficient import (
    DepthwiseSeparableConv3D,
    DropPath,
    MBConvBlock,
    ShuffleAttention3D,
    SqueezeExcitation3D,
)
from trivox.networks.hybrid import HybridEncoderBlock
from trivox.networks.registry import build_network, patch_family
from trivox.verbs.info import info

SIZES = {
    "hybrid-lite": (16.1, 48.9, 50),
    "hybrid-base": (20.0, 137.6, 150),
    "hybrid-large": (44.2, 335.4, 350),
}


def build(
    name="hybrid-lite",
    patch=(16, 24, 16),
    spacing=(1.0, 1.0, 1.0),
    channels=1,
    **options,
):
    topology, _ = patch_family(name).shape(patch, spacing)
    torch.manual_seed(0)
    return build_network(name, topology, channels=channels, outputs=3, options=options)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_operations_are_those_promised(name):
    millions, gflop, most = SIZES[name]
    facts = info(name, input=(4, 128, 128, 128))
    assert round(facts["parameters"] / 1e6, 1) == millions
    assert facts["gflop"] <= most
    assert facts["gflop"] == pytest.approx(gflop, rel=0.01)


def test_saved_activations_are_pinned():
    assert info("hybrid-lite", input=(4, 128, 128, 128))[
        "saved_activation_gib"
    ] == pytest.approx(3.15, rel=0.02)


def test_every_named_block_is_used():
    network = build("hybrid-lite")
    used = {type(module) for module in network.modules()}
    assert {
        DepthwiseSeparableConv3D,
        MBConvBlock,
        SqueezeExcitation3D,
        MultiHeadSelfAttention3D,
        TransformerBlock3D,
        ShuffleAttention3D,
        HybridEncoderBlock,
        DropPath,
    } <= used
    partitions = [
        m.partition for m in network.modules() if isinstance(m, TransformerBlock3D)
    ]
    assert partitions == ["window", "grid"] + ["global"] * 6


@pytest.mark.parametrize(
    ("attention", "kind"),
    [("swin", SwinTransformerBlock3D), ("deformable", DeformableAttention3D)],
)
def test_options_bring_their_blocks(attention, kind):
    assert any(
        isinstance(module, kind) for module in build(attention=attention).modules()
    )


def test_without_attention_no_transformer_is_left_and_everything_else_is_the_same():
    network = build(attention="none")
    whole = build()
    assert not any(isinstance(m, MultiHeadSelfAttention3D) for m in network.modules())
    left = {name for name, _ in whole.named_parameters() if ".attention." not in name}
    assert {name for name, _ in network.named_parameters()} == left


def test_unknown_options_are_refused_with_the_known_ones():
    with pytest.raises(
        RecipeError,
        match="attention 'linear' does not exist; choose one of default, none, swin",
    ):
        build(attention="linear")
    with pytest.raises(
        RecipeError,
        match="no option 'width'; its options: attention, drop_path, dropout",
    ):
        build(width=3)


@pytest.mark.parametrize(
    "attention", ["default", "none", "swin", "deformable", "global"]
)
@pytest.mark.parametrize(
    "size", [(16, 24, 16), (33, 20, 40), (1, 32, 40), (40, 56, 40)]
)
def test_any_size_gives_logits_of_its_size_and_every_scale_rounded_up(attention, size):
    network = build(attention=attention, patch=size).train()
    outputs = network(torch.randn(1, 1, *size))
    expected = size
    for stride, out in zip(network.topology.strides, outputs, strict=False):
        expected = tuple(-(-n // s) for n, s in zip(expected, stride, strict=True))
        assert out.shape == (1, 3, *expected)
    assert len(outputs) == 4
    assert network.eval()(torch.randn(1, 1, *size)).shape == (1, 3, *size)


@pytest.mark.parametrize("attention", ["default", "swin", "deformable"])
def test_every_parameter_learns(attention):
    network = build(attention=attention, drop_path=0.0).train()
    sum(
        out.square().mean() for out in network(torch.randn(1, 1, 16, 24, 16))
    ).backward()
    silent = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or not bool(p.grad.abs().sum() > 0)
    ]
    # offsets and spatial gates begin with zero weights: what lies before them waits for
    # the first step
    assert [
        name
        for name in silent
        if ".offsets." not in name and ".spatial_norm." not in name
    ] == []


def test_gradient_checkpointing_changes_no_gradient():
    network = build(drop_path=0.0).train()
    x = torch.randn(1, 1, 16, 24, 16)
    gradients = []
    for checkpointing in (False, True):
        network.gradient_checkpointing = checkpointing
        network.zero_grad()
        sum(out.square().mean() for out in network(x)).backward()
        gradients.append([p.grad.clone() for p in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_gradient_checkpointing_saves_memory():
    def saved(network):
        sizes = {}

        def keep(tensor):
            storage = tensor.untyped_storage()
            sizes[storage._cdata] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            network(torch.zeros(1, 1, 32, 32, 32))
        return sum(sizes.values())

    network = build(patch=(32, 32, 32)).train()
    whole = saved(network)
    network.gradient_checkpointing = True
    assert saved(network) < 0.6 * whole


def test_the_encoder_stages_are_the_encoder():
    network = build()
    stages = network.encoder_stages()
    assert len(stages) == 5
    parts = [network.up, network.fuse, network.decoder, network.heads]
    encoder = set(nn.ModuleList(stages).parameters())
    other = set(nn.ModuleList(parts).parameters())
    assert encoder.isdisjoint(other)
    assert encoder | other == set(network.parameters())


def test_drop_path_grows_along_the_encoder_up_to_the_option():
    rates = [
        m.rate
        for m in build(drop_path=0.3).encoder.modules()
        if isinstance(m, DropPath)
    ]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.3)
    assert rates[0] > 0


def test_activations_stay_in_the_channels_last_layout():
    network = build("hybrid-lite", channels=2).eval()
    maps = network.encode(torch.randn(1, 2, 16, 24, 16))
    assert [m.shape[1] for m in maps] == [16, 32, 64, 96, 432]
    assert all(m.is_contiguous(memory_format=torch.channels_last_3d) for m in maps)


def test_bf16_follows_fp32():
    network = build().eval()
    x = torch.randn(1, 1, 16, 24, 16)
    with torch.no_grad():
        exact = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x).float()
    assert float((exact - half).norm() / exact.norm()) < 0.05


def test_anisotropic_patches_keep_their_thin_axis_until_the_others_have_caught_up():
    topology, _ = patch_family("hybrid-lite").shape((8, 64, 64), (5.0, 1.0, 1.0))
    assert [stride[0] for stride in topology.strides] == [1, 1, 1, 2, 2]
    assert build(patch=(8, 64, 64), spacing=(5.0, 1.0, 1.0)).eval()(
        torch.randn(1, 1, 8, 64, 64)
    ).shape[2:] == (
        8,
        64,
        64,
    )
