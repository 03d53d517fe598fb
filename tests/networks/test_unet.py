"""U-Nets: sizes equal nnU-Net's, outputs at the scales of the plan, slices and samples
independent.
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trivox.networks.layers import (
    ConvBlock,
    InstanceNorm,
    ResidualBlock,
    UpSample,
    initialise,
    parameters_of,
)
from trivox.networks.registry import PATCH_NETWORKS, build_network
from trivox.planning.topology import Topology, stage_sizes, staged_topology

SIX = ((3, 3, 3),) * 6, ((1, 1, 1),) + ((2, 2, 2),) * 5


def small(*, residual=False, flat=False):
    """Three stages of 4, 8 and 16 features; `flat` for slices."""
    kernel, stride = ((1, 3, 3), (1, 2, 2)) if flat else ((3, 3, 3), (2, 2, 2))
    return Topology(
        kernels=(kernel,) * 3,
        strides=((1, 1, 1), stride, stride),
        features=(4, 8, 16),
        encoder_blocks=(2, 2, 2),
        decoder_blocks=(2, 1),
        residual=residual,
    )


def network(*, residual=False, flat=False, outputs=3, channels=2, **settings):
    torch.manual_seed(0)
    name = "resenc-m" if residual else "nnunet-plain"
    built = build_network(
        name,
        small(residual=residual, flat=flat),
        channels=channels,
        outputs=outputs,
        **settings,
    )
    # So that no weight is 0 or 1 by initialisation.
    for parameter in built.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return built


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "count"), [("nnunet-plain", 31_196_399), ("resenc-m", 102_350_575)]
)
def test_parameter_counts_at_six_stages_equal_nnunets(name, count):
    topology = staged_topology(PATCH_NETWORKS[name].blueprint, *SIX)
    with torch.device("meta"):
        built = build_network(name, topology, channels=1, outputs=3)
    assert parameters_of(built) == count


@pytest.mark.parametrize("residual", [False, True])
def test_the_network_follows_its_name_rather_than_the_topologys_flag(residual):
    built = build_network("resenc-m", small(residual=residual), channels=1, outputs=2)
    assert any(isinstance(module, ResidualBlock) for module in built.modules())
    plain = build_network(
        "nnunet-plain", small(residual=residual), channels=1, outputs=2
    )
    assert not any(isinstance(module, ResidualBlock) for module in plain.modules())


@pytest.mark.parametrize("residual", [False, True])
def test_training_returns_logits_at_every_scale_of_the_decoder_finest_first(residual):
    x = torch.randn(2, 2, 8, 12, 16)
    outputs = network(residual=residual).train()(x)
    sizes = stage_sizes((8, 12, 16), small().strides)
    assert [tuple(logits.shape) for logits in outputs] == [
        (2, 3, *size) for size in sizes[:-1]
    ]


@pytest.mark.parametrize("residual", [False, True])
def test_evaluation_returns_the_finest_logits_only(residual):
    net = network(residual=residual)
    x = torch.randn(1, 2, 8, 8, 8)
    finest = net.train()(x)[0]
    evaluated = net.eval()(x)
    assert isinstance(evaluated, torch.Tensor)
    torch.testing.assert_close(evaluated, finest)


def test_without_deep_supervision_training_returns_one_tensor():
    net = network(deep_supervision=False).train()
    assert net(torch.randn(1, 2, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


@pytest.mark.parametrize("residual", [False, True])
def test_every_parameter_learns(residual):
    net = network(residual=residual).train()
    sum(logits.square().mean() for logits in net(torch.randn(2, 2, 8, 8, 8))).backward()
    idle = [
        name for name, parameter in net.named_parameters() if parameter.grad is None
    ]
    assert idle == []


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_a_batch_equals_each_sample_alone(residual, flat):
    net = network(residual=residual, flat=flat).eval()
    x = torch.randn(3, 2, 1 if flat else 8, 8, 8)
    with torch.no_grad():
        together = net(x)
        alone = torch.cat([net(sample[None]) for sample in x])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_slices_of_a_2d_network_are_independent_of_each_other():
    net = network(flat=True).eval()
    convolutions = [
        m for m in net.modules() if isinstance(m, nn.Conv3d | nn.ConvTranspose3d)
    ]
    assert all(m.kernel_size[0] == m.stride[0] == 1 for m in convolutions)
    x = torch.randn(1, 2, 1, 8, 12)
    as_2d = torch.nn.functional.conv2d(
        x[:, :, 0], convolutions[0].weight[:, :, 0], convolutions[0].bias, padding=1
    )
    torch.testing.assert_close(convolutions[0](x)[:, :, 0], as_2d, atol=1e-5, rtol=1e-4)


@pytest.mark.oracle
@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 9),
    size=st.tuples(*(st.integers(2, 6),) * 3),
    batch=st.integers(1, 3),
)
def test_instance_norm_equals_torchs(channels, size, batch):
    norm = InstanceNorm(channels)
    torchs = nn.InstanceNorm3d(channels, affine=True)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    torchs.load_state_dict(norm.state_dict())
    x = torch.randn(batch, channels, *size) * 7 + 3
    torch.testing.assert_close(norm(x), torchs(x), atol=1e-4, rtol=1e-4)


def test_a_residual_block_that_keeps_size_and_width_starts_as_an_activated_identity():
    block = ResidualBlock(6, 6, (3, 3, 3), (1, 1, 1))
    initialise(block)
    x = torch.randn(2, 6, 4, 5, 6)
    torch.testing.assert_close(block(x.clone()), nn.functional.leaky_relu(x, 0.01))


@pytest.mark.parametrize(
    ("outputs", "stride"), [(6, (2, 2, 2)), (8, (1, 1, 1)), (8, (1, 2, 2))]
)
def test_a_residual_block_that_changes_size_or_width_starts_as_its_skip(
    outputs, stride
):
    block = ResidualBlock(6, outputs, (3, 3, 3), stride)
    initialise(block)
    x = torch.randn(2, 6, 4, 6, 8)
    expected = block.skip(x)
    torch.testing.assert_close(block(x), nn.functional.leaky_relu(expected, 0.01))
    assert expected.shape[2:] == tuple(
        n // s for n, s in zip((4, 6, 8), stride, strict=True)
    )


def test_a_block_leaves_its_input_alone():
    x = torch.randn(1, 4, 4, 4, 4)
    before = x.clone()
    for block in (
        ConvBlock(4, 4, (3, 3, 3)),
        ResidualBlock(4, 4, (3, 3, 3), (1, 1, 1)),
    ):
        block(x)
        assert torch.equal(x, before)


def test_upsampling_multiplies_the_size_by_the_stride():
    assert UpSample(4, 2, (1, 2, 2))(torch.randn(1, 4, 3, 4, 5)).shape == (
        1,
        2,
        3,
        8,
        10,
    )


def test_weights_start_he_normal_and_biases_at_zero():
    torch.manual_seed(0)
    net = build_network(
        "nnunet-plain",
        small().model_copy(update={"features": (16, 32, 32)}),
        channels=16,
        outputs=3,
    )
    for module in net.modules():
        if isinstance(module, nn.Conv3d) and module.weight.numel() > 5000:
            fan = module.in_channels * 27
            assert float(module.weight.detach().std()) == pytest.approx(
                (2 / (1.0001 * fan)) ** 0.5, rel=0.05
            )
            assert not module.bias.any()


def test_one_convolution_has_one_name():
    net = network(residual=True)
    assert len(net.state_dict()) == len(list(net.parameters()))


def test_the_same_seed_builds_the_same_network():
    for a, b in zip(network().parameters(), network().parameters(), strict=True):
        assert torch.equal(a, b)
