"""Sums in half precision are nnU-Net's, number for number."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, zoom
from torch import nn

from trivox.inference.engines.torch import torch_engines
from trivox.inference.restore import restore
from trivox.inference.windows import Slab, SlidingWindows, pad_to, window_starts
from trivox.learning.runtime import Runtime

CPU = Runtime(torch.device("cpu"), "fp32")
few = settings(max_examples=15, deadline=None, derandomize=True)
sizes = st.tuples(*[st.integers(1, 19)] * 3)
patches = st.tuples(*[st.sampled_from([2, 4, 6, 8])] * 3)


def networks(count):
    torch.manual_seed(0)
    result = []
    for _ in range(count):
        network = nn.Conv3d(1, 3, 3, padding=1)
        network.weight.data *= 20
        result.append(network.eval())
    return result


def weight_of(patch):
    """nnU-Net's `compute_gaussian`."""
    point = np.zeros(patch)
    point[tuple(size // 2 for size in patch)] = 1
    bell = gaussian_filter(point, [size / 8 for size in patch], mode="constant")
    weight = torch.from_numpy(bell / bell.max() * 10).half()
    weight[weight == 0] = weight[weight > 0].min()
    return weight


@torch.no_grad()
def mean_of(network, image, patch):
    """nnU-Net's `_internal_predict_sliding_window_return_logits`."""
    padded, before = pad_to(image, patch)
    total = torch.zeros(3, *padded.shape[1:], dtype=torch.half)
    weights = torch.zeros(padded.shape[1:], dtype=torch.half)
    weight = weight_of(patch)
    axes = zip(padded.shape[1:], patch, strict=True)
    for corner in product(*(window_starts(size, each, 0.5) for size, each in axes)):
        place = [slice(a, a + b) for a, b in zip(corner, patch, strict=True)]
        logits = network(padded[None, :, *place])[0]
        logits *= weight
        total[:, *place] += logits
        weights[*place] += weight
    torch.div(total, weights, out=total)
    inside = [
        slice(a, a + size) for a, size in zip(before, image.shape[1:], strict=True)
    ]
    return total[:, *inside]


@few
@given(sizes, patches, st.sampled_from([1, 2]))
def test_windows_are_summed_as_nnunet_sums_them(size, patch, count):
    image = torch.randn(1, *size, generator=torch.manual_seed(1))
    members = networks(count)
    windows = SlidingWindows(torch_engines(members, CPU), patch, 3, half=True)
    slabs = [slab.logits.clone() for slab in windows.slabs(image)]
    expected = mean_of(members[0], image, patch)
    for network in members[1:]:
        expected += mean_of(network, image, patch)
    expected /= count
    result = torch.cat(slabs, dim=1)
    assert result.dtype == torch.float32
    # a batch of windows may round otherwise than each alone
    near = torch.isclose(result, expected.float(), rtol=4e-3, atol=1e-3)
    assert near.all()
    assert (result == expected.float()).float().mean() > 0.97


@few
@given(sizes, sizes)
def test_the_first_of_classes_that_are_equal_in_half_precision_wins(size, shape):
    generator = torch.manual_seed(2)
    logits = torch.randn(4, *size, generator=generator).half().float()
    logits[2] = logits[1] + 0.001  # within rounding
    logits = logits.half().float()
    factors = [new / old for old, new in zip(size, shape, strict=True)]
    maps = [
        zoom(each.double().numpy(), factors, order=1, mode="nearest", grid_mode=True)
        for each in logits
    ]
    expected = np.stack(maps).astype(np.float16).argmax(0)
    labels = restore([Slab(0, logits)], size, shape, half=True).numpy()
    assert labels.shape == expected.shape
    assert (labels != expected).mean() <= 0.01


@pytest.mark.parametrize("count", [1, 2])
def test_a_slab_is_what_half_precision_can_hold(count):
    windows = SlidingWindows(
        torch_engines(networks(count), CPU), (4, 4, 4), 3, half=True
    )
    for slab in windows.slabs(torch.randn(1, 9, 7, 5)):
        assert torch.equal(slab.logits, slab.logits.half().float())
