import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trivox.inference.engines.torch import torch_engines
from trivox.inference.window_sums import axis_weight
from trivox.inference.windows import (
    Slab,
    SlidingWindows,
    mirrored,
    pad_to,
    window_starts,
)
from trivox.learning.runtime import Runtime

CPU = Runtime(torch.device("cpu"), "fp32")
few = settings(max_examples=20, deadline=None, derandomize=True)
sizes = st.tuples(*[st.integers(1, 21)] * 3)
patches = st.tuples(*[st.integers(2, 9)] * 3)


def network(outputs=3, channels=2, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv3d(channels, 4, 3, padding=1),
        nn.Tanh(),
        nn.Conv3d(4, outputs, 3, padding=1),
    ).eval()


def windows(patch, *, networks=None, outputs=3, **settings):
    engines = torch_engines(networks or [network(outputs)], CPU)
    return SlidingWindows(engines, patch, outputs, **settings)


def whole(predictor, image):
    slabs = [Slab(s.start, s.logits.clone()) for s in predictor.slabs(image)]
    assert [slab.start for slab in slabs] == list(
        np.cumsum([0] + [s.logits.shape[1] for s in slabs])[:-1]
    )
    return torch.cat([slab.logits for slab in slabs], dim=1)


@torch.no_grad()
def brute_force(networks, image, patch, *, overlap, axes=(), outputs=3):
    """Classes x volume accumulators and a map of weights: what the slabs avoid."""
    padded, before = pad_to(image, patch)
    grid = padded.shape[1:]
    total = torch.zeros(outputs, *grid, dtype=torch.float64)
    norm = torch.zeros(grid, dtype=torch.float64)
    z, y, x = (axis_weight(p).double() for p in patch)
    weight = z[:, None, None] * y[:, None] * x
    for start in itertools.product(
        *(window_starts(n, p, overlap) for n, p in zip(grid, patch, strict=True))
    ):
        box = tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
        crop = padded[(slice(None), *box)][None]
        logits = torch.zeros(outputs, *patch, dtype=torch.float64)
        copies = mirrored(axes)
        for net, flip in itertools.product(networks, copies):
            dims = [axis + 2 for axis in flip]
            logits += net(crop.flip(dims)).flip(dims)[0] / (len(networks) * len(copies))
        total[(slice(None), *box)] += logits * weight
        norm[box] += weight
    inside = tuple(
        slice(b, b + n) for b, n in zip(before, image.shape[1:], strict=True)
    )
    return (total / norm)[(slice(None), *inside)]


@few
@given(size=sizes, patch=patches, overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]))
def test_slabs_equal_a_brute_force_accumulation(size, patch, overlap):
    image = torch.randn(2, *size, generator=torch.Generator().manual_seed(1))
    net = network()
    found = whole(windows(patch, networks=[net], overlap=overlap), image)
    assert found.shape == (3, *size)
    assert torch.allclose(
        found.double(), brute_force([net], image, patch, overlap=overlap), atol=1e-5
    )


@few
@given(size=sizes, patch=patches, overlap=st.floats(0, 0.9))
def test_window_starts_are_nnunets(size, patch, overlap):
    for n, p in zip(size, patch, strict=True):
        starts = window_starts(n, p, overlap)
        n = max(n, p)
        # compute_steps_for_sliding_window
        steps = math.ceil((n - p) / (p * (1 - overlap))) + 1
        actual = (n - p) / (steps - 1) if steps > 1 else 1e11
        # the same places, each once; halves may round either way, as 0.5 * 3 / 2 and
        # 0.5 * (3 / 2) need not be equal
        expected = [actual * i for i in range(steps)]
        assert starts == sorted(set(starts))
        apart = np.abs(np.subtract.outer(starts, expected))
        assert apart.min(0).max() <= 0.5 + 1e-9
        assert apart.min(1).max() <= 0.5 + 1e-9
        assert (starts[0], starts[-1]) == (0, n - p)
        assert all(
            b - a <= p * (1 - overlap) + 1 for a, b in itertools.pairwise(starts)
        )


def test_window_starts_of_a_known_case():
    assert window_starts(110, 64, 0.5) == [0, 23, 46]
    assert window_starts(128, 128, 0.5) == window_starts(50, 128, 0.5) == [0]


@pytest.mark.parametrize("budget", [1, 200, 10**9])
def test_batched_windows_equal_one_by_one(budget):
    image = torch.randn(2, 11, 13, 9)
    one = whole(windows((6, 5, 4), voxels_a_batch=1), image)
    assert torch.allclose(
        whole(windows((6, 5, 4), voxels_a_batch=budget), image), one, atol=1e-6
    )


def test_batches_hold_as_many_windows_as_the_budget_allows():
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x[:, :1]

    list(
        windows((4, 4, 4), networks=[Watch()], outputs=1, voxels_a_batch=64 * 6).slabs(
            torch.zeros(1, 4, 12, 12)
        )
    )
    assert seen == [6, 6, 6, 6, 1]
    seen.clear()
    predictor = windows(
        (4, 4, 4),
        networks=[Watch()],
        outputs=1,
        voxels_a_batch=64 * 6,
        mirror_axes=(1,),
    )
    list(predictor.slabs(torch.zeros(1, 4, 4, 12)))
    assert seen == [6, 4]  # three windows and their mirrored copies, then two


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_mirrored_copies_are_averaged(axes):
    image = torch.randn(2, 9, 8, 7)
    net = network()
    found = whole(windows((6, 5, 4), networks=[net], mirror_axes=axes), image)
    expected = brute_force([net], image, (6, 5, 4), overlap=0.5, axes=axes)
    assert torch.allclose(found.double(), expected, atol=1e-5)
    assert not torch.allclose(
        found, whole(windows((6, 5, 4), networks=[net]), image), atol=1e-3
    )


def test_mirroring_changes_nothing_for_a_network_that_commutes_with_flips():
    net = network()
    for layer in (net[0], net[2]):
        weight = layer.weight.data.clone()
        for axis in (2, 3, 4):
            weight = (weight + weight.flip(axis)) / 2
        layer.weight.data = weight
    image = torch.randn(2, 9, 8, 7)
    plain, both = (
        whole(windows((6, 5, 4), networks=[net], mirror_axes=a), image)
        for a in ((), (0, 1, 2))
    )
    assert torch.allclose(plain, both, atol=1e-5)


def test_mirrored_lists_every_combination_once():
    assert mirrored(()) == [()]
    assert len(set(mirrored((0, 1, 2)))) == 8
    assert mirrored((0, 2))[0] == ()


def test_several_networks_give_the_mean_of_their_logits():
    image = torch.randn(2, 9, 8, 7)
    nets = [network(seed=s) for s in range(3)]
    each = [whole(windows((6, 5, 4), networks=[net]), image) for net in nets]
    assert torch.allclose(
        whole(windows((6, 5, 4), networks=nets), image),
        torch.stack(each).mean(0),
        atol=1e-5,
    )


def test_logits_are_float32_whatever_the_precision():
    engines = torch_engines([network()], Runtime(torch.device("cpu"), "bf16"))
    predictor = SlidingWindows(engines, (6, 5, 4), 3)
    slabs = predictor.slabs(torch.randn(2, 9, 8, 7))
    assert {slab.logits.dtype for slab in slabs} == {torch.float32}


def test_any_engine_computes_windows():
    """What is not torch needs no more than to say where it computes, and to do so."""

    class Doubling:
        device = torch.device("cpu")
        precision = "int8"
        voxels_a_batch = 2 * 6 * 5 * 4

        def logits(self, windows):
            assert len(windows) <= 2
            return 2 * windows

        def split(self):
            return None

    image = torch.randn(3, 9, 8, 7)
    found = whole(SlidingWindows([Doubling()], (6, 5, 4), 3), image)
    assert torch.allclose(found, 2 * image, atol=1e-5)


def test_constant_logits_stay_constant_everywhere():
    """Weights and their sum cancel exactly where they are smallest, in the corners."""

    class One(nn.Module):
        def forward(self, x):
            return torch.ones_like(x)

    found = whole(
        windows((16, 16, 16), networks=[One()], outputs=1), torch.zeros(1, 40, 17, 33)
    )
    assert torch.allclose(found, torch.ones(()), atol=1e-5)


def test_never_holds_classes_times_volume():
    """A slab is one patch deep at most, however deep the volume."""
    depths = [
        s.logits.shape[1] for s in windows((4, 8, 8)).slabs(torch.zeros(2, 64, 8, 8))
    ]
    assert max(depths) <= 4
    assert sum(depths) == 64
