import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from trivox.datasets.labels import LabelScheme
from trivox.inference.logits import labels as labels_module
from trivox.inference.logits.labels import label_indices, largest
from trivox.inference.restore import (
    restore,
    restore_labels,
    restored_logits,
)
from trivox.inference.windows import Slab

LABELS = LabelScheme(labels={"a": 7, "b": 300})
REGIONS = LabelScheme(
    labels={"a": 7, "b": 300},
    regions={"whole": (7, 300), "core": (300,)},
    region_order=(7, 300),
)
few = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.tuples(*[st.integers(1, 14)] * 3)


def smooth_logits(classes, size, seed=0, sigma=2.0):
    noise = np.random.default_rng(seed).standard_normal((classes, *size))
    return torch.from_numpy(
        gaussian_filter(noise, (0, sigma, sigma, sigma)).astype(np.float32) * 20
    )


def interpolated(logits, shape):
    return F.interpolate(
        logits[None], size=shape, mode="trilinear", align_corners=False
    )[0]


def all_logits(slabs, size, shape, axis=None):
    chunks = list(restored_logits(slabs, size, shape, nearest_axis=axis))
    starts = np.cumsum([0, *(part.shape[1] for _, part in chunks)])
    assert [start for start, _ in chunks] == starts[:-1].tolist()
    return torch.cat([part for _, part in chunks], dim=1)


def cut(logits, edges):
    return [Slab(a, logits[:, a:b]) for a, b in pairwise(edges) if b > a]


@pytest.mark.parametrize(
    "shape", [(48, 60, 51), (20, 25, 18), (24, 90, 30), (29, 31, 29)]
)
@pytest.mark.parametrize("classes", [2, 3, 5, 30])
@pytest.mark.parametrize("sigma", [2.0, 0.7])
def test_labels_are_the_argmax_of_all_interpolated_logits(shape, classes, sigma):
    """Slivers of a third class between two others included; only what rounding decides
    may differ.
    """
    logits = smooth_logits(classes, (24, 30, 27), sigma=sigma)
    before = logits.clone()
    full = interpolated(logits, shape)
    found = restore_labels(logits, shape).long()
    assert torch.equal(logits, before)
    gap = full.amax(0) - full.gather(0, found[None])[0]
    assert gap.max() < 1e-4
    assert (found != full.argmax(0)).float().mean() < 1e-4


def test_a_class_that_wins_nowhere_around_can_win_in_between():
    logits = torch.tensor([[[[9.0, 0.0]]], [[[0.0, 9.0]]], [[[7.0, 7.0]]]])
    assert restore_labels(logits, (1, 1, 6)).flatten().tolist() == [0, 0, 2, 2, 1, 1]


@pytest.mark.parametrize("scheme", [LABELS, REGIONS])
@pytest.mark.parametrize("above", [0, 0.5])
def test_tensors_and_arrays_are_decided_alike(scheme, above):
    scores = smooth_logits(scheme.output_channels, (6, 7, 5), sigma=1.0)
    indices = label_indices(scores, scheme, above=above)
    assert indices.dtype == np.int16
    assert set(np.unique(indices)) == {0, 1, 2}
    assert np.array_equal(indices, scheme.decide(scores.numpy(), above=above))
    if scheme is REGIONS:
        inside = (scores > above).numpy()
        assert np.array_equal(indices, np.where(inside[1], 2, inside[0]))


@few
@given(size=sizes, shape=sizes, data=st.data())
def test_slab_by_slab_equals_at_once(size, shape, data):
    logits = smooth_logits(4, size, sigma=1.0)
    edges = sorted(
        {0, size[0], *data.draw(st.lists(st.integers(0, size[0]), max_size=3))}
    )
    axis = data.draw(st.sampled_from([None, 0, 1, 2]))
    at_once = restore([Slab(0, logits)], size, shape, nearest_axis=axis)
    assert at_once.shape == shape
    assert torch.equal(
        restore(cut(logits, edges), size, shape, nearest_axis=axis), at_once
    )
    both = [
        all_logits(slabs, size, shape, axis)
        for slabs in ([Slab(0, logits)], cut(logits, edges))
    ]
    assert torch.allclose(*both, atol=1e-4)


@few
@given(size=sizes)
def test_the_same_size_is_a_plain_argmax(size):
    logits = smooth_logits(3, size)
    assert torch.equal(restore_labels(logits, size).long(), logits.argmax(0))


@few
@given(size=sizes, shape=sizes)
def test_restored_logits_are_interpolated(size, shape):
    logits = smooth_logits(4, size, sigma=1.0)
    assert torch.allclose(
        all_logits([Slab(0, logits)], size, shape),
        interpolated(logits, shape),
        atol=1e-4,
    )


class Everywhere:
    """Asks for every voxel, or every third."""

    def __init__(self, step=1):
        self.step = step
        self.voxels = []
        self.logits = []

    def choose(self, start, labels):
        voxels = torch.nonzero(torch.ones(labels.shape[-3:], dtype=torch.bool))[
            :: self.step
        ]
        self.voxels.append(voxels + torch.tensor([start, 0, 0]))
        return voxels

    def keep(self, logits):
        self.logits.append(logits)


@few
@given(size=sizes, shape=sizes, data=st.data())
def test_a_sampler_gets_the_interpolated_logits_of_the_voxels_it_chose(
    size, shape, data
):
    logits = smooth_logits(3, size, sigma=1.0)
    edges = sorted(
        {0, size[0], *data.draw(st.lists(st.integers(0, size[0]), max_size=3))}
    )
    sampler = Everywhere(3)
    axis = data.draw(st.sampled_from([None, 0, 1, 2]))
    plain = restore(cut(logits, edges), size, shape, nearest_axis=axis)
    assert torch.equal(
        restore(cut(logits, edges), size, shape, nearest_axis=axis, sampler=sampler),
        plain,
    )
    voxels = torch.cat(sampler.voxels)
    found = torch.cat(sampler.logits, dim=1)
    expected = all_logits([Slab(0, logits)], size, shape, axis)
    assert torch.allclose(found, expected[(slice(None), *voxels.T)], atol=1e-4)


@few
@given(size=sizes, shape=sizes)
def test_regions_are_where_the_interpolated_logit_is_positive(size, shape):
    logits = smooth_logits(3, size, sigma=1.0)
    found = restore([Slab(0, logits)], size, shape, exclusive=False)
    full = interpolated(logits, shape)
    assert found.dtype == torch.bool
    assert torch.equal(found | (full.abs() < 1e-4), (full > 0) | (full.abs() < 1e-4))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_coarse_axis_takes_the_nearest_slice(axis):
    size = (6, 7, 8)
    shape = (15, 14, 20)
    logits = smooth_logits(4, size, sigma=1.0)
    at = ((torch.arange(shape[axis]) + 0.5) * size[axis] / shape[axis]).long()
    repeated = logits.index_select(axis + 1, at)
    expected = interpolated(repeated, shape)
    found = restore_labels(logits, shape, nearest_axis=axis)
    assert (found == expected.argmax(0)).float().mean() > 0.9999
    assert torch.allclose(
        all_logits([Slab(0, logits)], size, shape, axis), expected, atol=1e-4
    )


def test_ties_go_to_the_smaller_class():
    assert restore_labels(torch.zeros(5, 4, 4, 4), (9, 9, 9)).max() == 0


@given(st.integers(2, 90), st.integers(0, 9), st.integers(1, 60))
@few
def test_the_largest_is_the_first_of_equals(classes, seed, portion):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-4, 4, (classes, 6, 5, 7), generator=generator).float()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(labels_module, "IN_CACHE", portion)
        for scores in (logits, logits[:, 2:5], logits[:, :, 1:4, 2:]):
            highest, index = largest(scores)
            expected = scores.numpy()
            np.testing.assert_array_equal(highest, expected.max(0))
            np.testing.assert_array_equal(index, expected.argmax(0))
            assert index.dtype == torch.int16


MEMORY = """
import resource, torch
torch.set_num_threads(1)
from trivox.inference.restore import restore
from trivox.inference.windows import Slab
def slabs():  # drawn one by one, as windows deliver them
    for start in range(0, 24, 3):
        g = torch.Generator().manual_seed(start // 6)
        yield Slab(start, torch.randn(40, 1, 3, 5, 5, generator=g)[:, 0].repeat_interleave(9, 2)
                   .repeat_interleave(9, 3))
list(zip(range(1), slabs()))
restore([Slab(0, torch.zeros(40, 2, 8, 8))], (2, 8, 8), (4, 16, 16))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
out = restore(slabs(), (24, 45, 45), (96, 180, 180))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((peak - before) * 1024 / out.numel())
"""


def test_memory_does_not_grow_with_classes_times_voxels():
    """40 classes: at most 16 bytes an output voxel beyond what is there before; a full
    logit map would be 160.
    """
    done = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) <= 16
