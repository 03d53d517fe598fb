"""What a GPU computes with fewer kernels than a CPU is what the CPU computes, and so are
the gradients.
"""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trivox.learning.losses.targets import absolute_difference, taking_part
from trivox.networks import halves
from trivox.networks.halves import interpolated
from trivox.networks.layers import instance_norm
from trivox.networks.transformer_kernels import (
    attended_in_full,
    gated,
    moved,
    with_branch,
)
from trivox.networks.xray2ct.lifting import fuse, fuse_at_once
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.iterative import sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

GRID = Grid((8, 8, 8), (40.0, 40.0, 40.0))
SHAPES = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def alike(work, gpu, *tensors, tolerance=1e-5):
    """`work` of tensors on both devices gives the same, and the same gradients."""
    results = []
    for device in ("cpu", gpu):
        given = [part.detach().to(device) for part in tensors]
        given = [p.requires_grad_() if p.is_floating_point() else p for p in given]
        result = work(*given)
        weights = torch.linspace(-1, 1, result.numel()).view(result.shape).to(device)
        (result.float() * weights).sum().backward()
        gradients = [part.grad.cpu() for part in given if part.grad is not None]
        results.append([result.detach().cpu(), *gradients])
    there, here = results
    assert len(there) == len(here)
    for one, other in zip(there, here, strict=True):
        torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance)


def by_formula(query, key, value, bias, hidden):
    logits = query @ key.mT * query.shape[-1] ** -0.5 + bias
    return (logits + hidden).softmax(-1) @ value


@SHAPES
@given(st.integers(1, 3), st.integers(1, 2), st.integers(1, 5), st.integers(1, 5))
def test_attention_in_full(gpu, n, heads, t, k):
    torch.manual_seed(n + 7 * k)
    query = torch.randn(n, heads, t, 6)
    key, value = torch.randn(2, n, heads, k, 6)
    bias = torch.randn(1, heads, t, k)
    hidden = torch.zeros(n, 1, 1, k)
    hidden[..., 1:].masked_fill_(torch.rand(n, 1, 1, k - 1) < 0.3, -torch.inf)

    def work(query, key, value, bias):
        if query.is_cuda:
            return attended_in_full(query, key, value, bias, hidden.to(gpu))
        return by_formula(query, key, value, bias, hidden)

    alike(work, gpu, query, key, value, bias)


def test_branches_gates_and_moves(gpu):
    torch.manual_seed(0)
    tokens, branch = torch.randn(2, 2, 6, 5)
    alike(with_branch, gpu, tokens, torch.randn(5), branch)
    alike(with_branch, gpu, tokens.mT.contiguous().mT, torch.randn(5), branch)
    alike(gated, gpu, torch.randn(2, 3, 8))
    order = torch.randperm(6)
    back = torch.argsort(order)
    alike(moved, gpu, tokens, order, back)


@pytest.mark.parametrize("entries", [0, halves.ENTRIES])
@pytest.mark.parametrize(
    ("size", "twice"), [((3, 5), (6, 9)), ((3, 5), (6, 10)), ((2, 3, 4), (4, 6, 8))]
)
def test_interpolation_in_bf16(gpu, monkeypatch, size, twice, entries):
    """By a matrix where it may, of a map that is doubled, and without."""
    from pretended_gpu.device import counting

    monkeypatch.setattr(halves, "ENTRIES", entries)
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    there = x.bfloat16().to(gpu).requires_grad_()
    interpolated(there, twice)  # sends the matrix
    with counting(launches=True) as counts:
        result = interpolated(there, twice)
    by_matrix = entries > 0 and twice == tuple(2 * edge for edge in size)
    assert ("aten::bmm" in {name for name, _ in counts.launches}) == by_matrix
    assert result.dtype == torch.bfloat16
    expected = interpolated(x, twice)
    torch.testing.assert_close(result.float().cpu(), expected, rtol=0.02, atol=0.02)
    result.float().square().sum().backward()
    x.requires_grad_()
    interpolated(x, twice).square().sum().backward()
    torch.testing.assert_close(there.grad.float().cpu(), x.grad, rtol=0.05, atol=0.1)


@SHAPES
@given(
    views=st.integers(1, 4),
    levels=st.lists(
        st.tuples(st.integers(1, 3), st.integers(1, 9)), min_size=1, max_size=4
    ),
)
def test_levels_are_fused_at_once_as_one_by_one(gpu, views, levels):
    generator = torch.Generator().manual_seed(views)
    looks = []
    seen = []
    for channels, voxels in levels:
        x = torch.randn(2, views, channels, voxels, generator=generator)
        looks.append((x, torch.randn(2, views, 1, voxels, generator=generator)))
        seen.append(torch.rand(2, views, 1, voxels, generator=generator) < 0.6)
    there = [(x.to(gpu), score.to(gpu)) for x, score in looks]
    at_once = fuse_at_once(there, [mask.to(gpu) for mask in seen])
    for (x, score), mask, fused in zip(looks, seen, at_once, strict=True):
        for one, other in zip(fuse(x, score, mask), fused, strict=True):
            torch.testing.assert_close(other.cpu(), one)


@pytest.mark.parametrize("shared", [True, False])
def test_sirt_in_place(gpu, shared):
    """With views that one of two exams lacks, and a start that stays what it is."""
    first, second = (
        Geometry.orbit(angles, detector=(16, 16), pixel_mm=32.0)
        for angles in ((0.0, 80.0, 130.0), (20.0, 100.0, 150.0))
    )
    geometry = first if shared else Geometry.stack((first, second))
    images = 3 * torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    dropped = torch.tensor([[False, False, True], [False] * 3])
    exam = Xrays.of(images, geometry).without(dropped)
    start = torch.full((2, *GRID.shape), 0.01)
    expected = sirt(exam, Projector(geometry, GRID), iterations=4, start=start)
    there = exam.to(gpu)
    projector = Projector(there.geometry, GRID)
    assert projector.towards(torch.ones(2, 3, 16, 16, device=gpu), start.to(gpu))
    began = start.to(gpu)
    result = sirt(there, projector, iterations=4, start=began)
    torch.testing.assert_close(result.cpu(), expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(began.cpu(), start)
    assert (result.cpu() - start).abs().max() > 1e-3


@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_absolute_differences(gpu, reduction):
    """Also of values that are the same, whose slope is 0."""
    one, other = torch.randn(2, 2, 5, 6)
    one[0] = other[0]

    def work(one, other):
        if one.is_cuda:
            return absolute_difference(one, other, reduction=reduction)
        return F.l1_loss(one, other, reduction=reduction)

    alike(work, gpu, one, other, tolerance=1e-6)


@pytest.mark.parametrize(
    ("layout", "norms"), [(torch.contiguous_format, 1), (torch.channels_last_3d, 3)]
)
def test_norms_of_a_batch_in_bf16(gpu, layout, norms):
    """With an activation in place behind them; by one kernel where the layout allows."""
    from pretended_gpu.device import counting

    torch.manual_seed(0)
    x = torch.randn(3, 4, 5, 6, 7)
    weight, bias = torch.randn(2, 4)

    def work(x, weight, bias):
        half = x.bfloat16().contiguous(memory_format=layout)
        if x.is_cuda:
            return F.leaky_relu_(instance_norm(half, weight, bias, 1e-5), 0.1).float()
        normed = F.instance_norm(half.float(), weight=weight, bias=bias, eps=1e-5)
        return F.leaky_relu(normed, 0.1)

    alike(work, gpu, x, weight, bias, tolerance=0.1)
    with counting(launches=True) as counts:
        work(x.to(gpu), weight.to(gpu), bias.to(gpu))
    names = [name for name, _ in counts.launches.elements()]
    assert names.count("aten::native_batch_norm") == norms


def test_an_idle_output_costs_a_kernel_and_one_for_its_gradient(gpu):
    from pretended_gpu.device import counting

    output = torch.randn(2, 3, 4, 5, 6, device=gpu).half().requires_grad_()
    with counting(launches=True) as counts:
        value = taking_part(output * 60000)
        value.backward()
    assert value == 0
    assert not output.grad.any()
    names = [name for name, _ in counts.launches.elements()]
    assert names.count("aten::zero_") == 2
    assert len(names) <= 5, counts.table(what="launches")
