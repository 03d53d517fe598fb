"""The depthwise convolution gives torch's results and gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.networks.depthwise import (
    DepthwiseConv3d,
    _correlation,
    _spread,
    _weight_gradient,
)

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


def reference(x, weight, stride):
    padding = [(k - 1) // 2 for k in weight.shape[2:]]
    return F.conv3d(x, weight, stride=stride, padding=padding, groups=len(weight))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    size=st.tuples(*(st.integers(1, 7),) * 3),
    kernel=st.tuples(*(st.sampled_from([1, 3, 5]),) * 3),
    stride=st.tuples(*(st.sampled_from([1, 2, 3]),) * 3),
    channels=st.sampled_from([1, 3, 16, 24, 48]),
    layout=st.sampled_from(LAYOUTS),
)
def test_output_and_gradients_equal_torchs_own_depthwise_convolution(
    size, kernel, stride, channels, layout
):
    generator = torch.Generator().manual_seed(channels + sum(size))
    layer = DepthwiseConv3d(channels, kernel, stride).double()
    x = torch.randn(
        2, channels, *size, generator=generator, dtype=torch.float64
    ).contiguous(memory_format=layout)
    x_cheap = x.clone().requires_grad_(True)
    x_torch = x.clone().requires_grad_(True)
    weight = layer.weight.detach().clone().requires_grad_(True)
    out = layer(x_cheap)
    expected = reference(x_torch, weight, stride)
    torch.testing.assert_close(out, expected)
    seed = torch.randn(out.shape, generator=generator, dtype=torch.float64)
    out.backward(seed)
    expected.backward(seed)
    torch.testing.assert_close(x_cheap.grad, x_torch.grad)
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-5, atol=1e-5)


def test_the_layout_of_the_input_is_kept_through_both_passes():
    layer = DepthwiseConv3d(16, (3, 3, 3), (2, 2, 2))
    x = (
        torch.randn(1, 16, 6, 8, 10)
        .contiguous(memory_format=torch.channels_last_3d)
        .requires_grad_(True)
    )
    out = layer(x)
    assert out.is_contiguous(memory_format=torch.channels_last_3d)
    out.sum().backward()
    assert x.grad.is_contiguous(memory_format=torch.channels_last_3d)


def test_under_autocast_the_result_is_in_bf16_and_the_weights_gradient_in_fp32():
    layer = DepthwiseConv3d(16, (3, 3, 3))
    x = torch.randn(1, 16, 6, 6, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    exact = reference(x.detach(), layer.weight.detach(), (1, 1, 1))
    torch.testing.assert_close(out.float(), exact, rtol=2e-2, atol=2e-2)
    assert layer.weight.grad.dtype == x.grad.dtype == torch.float32


@pytest.mark.parametrize(
    "size", [(1, 4, 5), (2, 3, 2), (2, 2, 2), (3, 7, 5), (8, 8, 8)]
)
@pytest.mark.parametrize("channels", [48, 768])
def test_gradients_are_right_in_bf16_however_flat_the_map(size, channels):
    """torch 2.13's own weight gradient is garbage where a map has fewer planes than the
    kernel.
    """
    torch.manual_seed(0)
    layer = DepthwiseConv3d(channels, (3, 3, 3))
    x = (
        torch.randn(2, channels, *size)
        .bfloat16()
        .contiguous(memory_format=torch.channels_last_3d)
        .requires_grad_(True)
    )
    exact, weight = (
        t.detach().bfloat16().double().requires_grad_(True) for t in (x, layer.weight)
    )
    expected = reference(exact, weight, (1, 1, 1))
    seed = torch.randn(expected.shape).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).backward(seed)
    expected.backward(seed.double())
    for gradient, wanted in ((layer.weight.grad, weight.grad), (x.grad, exact.grad)):
        torch.testing.assert_close(
            gradient.double(), wanted, rtol=2e-2, atol=2e-2 * float(wanted.abs().max())
        )


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((3, 3, 3), (1, 1, 1)), ((1, 3, 5), (1, 2, 2)), ((3, 3, 3), (2, 2, 2))],
)
def test_dense_blocks_give_the_gradient_that_a_gpu_needs(kernel, stride):
    x = torch.randn(2, 48, 6, 7, 8)
    gradient = torch.randn(
        2, 48, *(-(-n // s) for n, s in zip(x.shape[2:], stride, strict=True))
    )
    padding = [(k - 1) // 2 for k in kernel]
    expected = _correlation(x, _spread(gradient, x.shape[2:], stride), padding)
    torch.testing.assert_close(
        _weight_gradient(x, gradient, kernel, stride), expected, rtol=1e-4, atol=1e-3
    )


def test_second_derivatives_are_right_too():
    layer = DepthwiseConv3d(3, (3, 3, 3)).double()
    x = torch.randn(2, 3, 3, 4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, x)
    assert torch.autograd.gradgradcheck(layer, x)


@pytest.mark.parametrize("needed", ["input", "weight"])
def test_only_what_is_asked_for_is_computed(needed):
    layer = DepthwiseConv3d(16, (3, 3, 3))
    layer.weight.requires_grad_(needed == "weight")
    x = torch.randn(1, 16, 4, 4, 4, requires_grad=needed == "input")
    layer(x).sum().backward()
    assert (x.grad is not None) == (needed == "input")
    assert (layer.weight.grad is not None) == (needed == "weight")
