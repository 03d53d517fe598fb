"""Laws of layers that all networks share."""

import pytest
import torch

from trivox.networks.layers import Conv3d, convolution


def gradients(layer, x, *, bf16):
    layer.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = layer(x).float()
    # What a faulty kernel reads past its buffers is not 0.
    sizes = [1 << power for power in range(8, 22, 2)] * 6
    scratch = [torch.full((size,), 1e3) for size in sizes]
    del scratch
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(2)))
    return out.detach(), x.grad, *(p.grad.clone() for p in layer.parameters())


@pytest.mark.parametrize(
    "size", [(1, 4, 4), (2, 2, 2), (2, 8, 8), (3, 4, 4), (4, 2, 2)]
)
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_convolutions_learn_the_same_in_bf16_at_any_depth(size, kernel):
    torch.manual_seed(0)
    layer = convolution(32, 48, kernel)
    x = torch.randn(4, 32, *size)
    assert isinstance(layer, Conv3d)
    for exact, rounded in zip(
        gradients(layer, x, bf16=False), gradients(layer, x, bf16=True), strict=True
    ):
        assert rounded.shape == exact.shape
        assert float((rounded - exact).norm() / exact.norm()) < 0.02


def test_a_stride_is_kept():
    torch.manual_seed(0)
    layer = convolution(16, 16, (3, 3, 3), (2, 2, 2))
    x = torch.randn(2, 16, 2, 4, 4)
    for exact, rounded in zip(
        gradients(layer, x, bf16=False), gradients(layer, x, bf16=True), strict=True
    ):
        assert float((rounded - exact).norm() / exact.norm()) < 0.02
