from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import binary_dilation

from trivox.inference.doubt.label_voxels import LABEL_SAMPLE, LabelVoxels
from trivox.inference.doubt.sampling import BAND_VOXELS, BandSampler, widen

few = settings(max_examples=25, deadline=None, derandomize=True)
sizes = st.tuples(*[st.integers(1, 9)] * 3)


def scene(size, seed, density=0.05):
    rng = np.random.default_rng(seed)
    reference = (rng.random(size) < density).astype(np.int16) * rng.integers(
        1, 3, size
    ).astype(np.int16)
    reference[rng.random(size) < 0.1] = -1
    predicted = (rng.random(size) < density).astype(np.int16)
    return reference, torch.from_numpy(predicted)


def shown(sampler, labels, edges):
    """Show the rows chunk by chunk; the logits of a voxel are its place."""
    places = torch.arange(labels.numel()).reshape(labels.shape)
    for a, b in pairwise(edges):
        voxels = sampler.choose(a, labels[a:b])
        sampler.keep(places[a:b][tuple(voxels.T)].float()[None])
    return sampler.sample()


def band_of(reference, predicted):
    near = binary_dilation(reference > 0, np.ones((2 * BAND_VOXELS + 1,) * 3))
    flat = binary_dilation(
        predicted.numpy() > 0, np.ones((1, 2 * BAND_VOXELS + 1, 2 * BAND_VOXELS + 1))
    )
    return (near | flat) & (reference >= 0)


@few
@given(
    size=sizes,
    reach=st.integers(0, 4),
    axes=st.sampled_from([(0,), (1, 2), (0, 1, 2)]),
    seed=st.integers(0, 99),
)
def test_widening_is_a_dilation_by_a_box(size, reach, axes, seed):
    mask = np.random.default_rng(seed).random(size) < 0.1
    box = np.ones([2 * reach + 1 if axis in axes else 1 for axis in range(3)])
    assert np.array_equal(
        widen(torch.from_numpy(mask), axes=axes, reach=reach),
        binary_dilation(mask, box),
    )


@few
@given(size=sizes, seed=st.integers(0, 99), data=st.data())
def test_the_whole_band_is_sampled_if_it_fits_whatever_the_chunks(size, seed, data):
    reference, predicted = scene(size, seed)
    edges = sorted(
        {0, size[0], *data.draw(st.lists(st.integers(0, size[0]), max_size=3))}
    )
    sample = shown(BandSampler(reference), predicted, edges)
    expected = np.flatnonzero(band_of(reference, predicted))
    places = sample.logits[:, 0].long()
    assert np.array_equal(places.sort().values, expected)
    assert np.array_equal(sample.reference, reference.reshape(-1)[places])


@few
@given(seed=st.integers(0, 99), data=st.data())
def test_chunks_do_not_change_what_is_drawn(seed, data):
    reference, predicted = scene((9, 12, 11), seed, density=0.02)
    edges = sorted({0, 9, *data.draw(st.lists(st.integers(0, 9), max_size=4))})
    one = shown(BandSampler(reference, count=20, seed=seed), predicted, [0, 9])
    many = shown(BandSampler(reference, count=20, seed=seed), predicted, edges)
    assert torch.equal(one.logits, many.logits)
    assert len(one.logits) == min(20, int(band_of(reference, predicted).sum()))


def test_every_voxel_of_the_band_is_as_likely_as_any_other():
    labels = torch.ones(4, 5, 5, dtype=torch.int16)
    hits = np.zeros(100)
    for seed in range(400):
        sample = shown(BandSampler(count=25, seed=seed), labels, [0, 1, 2, 3, 4])
        hits[sample.logits[:, 0].long().numpy()] += 1
    assert hits.sum() == 400 * 25
    assert np.abs(hits - 100).max() < 5 * np.sqrt(
        400 * 0.25 * 0.75
    )  # five standard deviations


def test_without_reference_the_predicted_foreground_is_sampled():
    _, predicted = scene((6, 7, 8), 3)
    sample = shown(BandSampler(), predicted, [0, 6])
    assert sample.reference is None
    drawn = sample.logits[:, 0].long().sort().values
    assert np.array_equal(drawn, np.flatnonzero(predicted))
    regions = torch.stack([predicted > 0, predicted.flip(0) > 0])
    sampler = BandSampler()
    assert len(sampler.choose(0, regions)) == int(regions.any(0).sum())


def test_memory_is_bounded_by_the_count():
    """And so is the work: the more was seen, the fewer voxels of a chunk can still win."""
    sampler = BandSampler(count=10)
    asked = 0
    for start in range(50):
        voxels = sampler.choose(start, torch.ones(1, 6, 6, dtype=torch.int16))
        sampler.keep(torch.zeros(2, len(voxels)))
        assert sum(len(keys) for keys, _, _ in sampler._drawn) <= 20
        asked += len(voxels)
    assert sampler.sample().logits.shape == (10, 2)
    assert asked < 200  # of 1800


@pytest.mark.parametrize("empty", [0, -1])
def test_nothing_to_sample(empty):
    reference = np.full((3, 4, 5), empty, np.int16)
    sample = shown(
        BandSampler(reference), torch.zeros(3, 4, 5, dtype=torch.int16), [0, 3]
    )
    assert sample.logits.shape == (0, 1)


@few
@given(size=sizes, seed=st.integers(0, 99), data=st.data())
def test_voxels_of_each_label_are_those_with_the_smallest_keys(size, seed, data):
    """Whatever the chunks, a rare label has all of its voxels, a frequent one `count`."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.choice([-1, 0, 1, 1, 1, 3], size).reshape(-1))
    keys = torch.from_numpy(rng.random(labels.shape))
    logits = torch.arange(len(labels)).float()[:, None]
    edges = {
        0,
        len(labels),
        *data.draw(st.lists(st.integers(0, len(labels)), max_size=3)),
    }
    drawn = LabelVoxels(count=4)
    for a, b in pairwise(sorted(edges)):
        wins = drawn.wins(keys[a:b], labels[a:b])
        drawn.keep((keys[a:b][wins], logits[a:b][wins], labels[a:b][wins]))
    sample = drawn.sample()
    for label in (1, 3):
        places = torch.nonzero(labels == label)[:, 0]
        expected = places[keys[places].argsort()[:4]]
        assert torch.equal(sample.logits[sample.reference == label, 0].long(), expected)
    assert set(sample.reference.tolist()) <= {1, 3}


def test_a_small_lesion_beside_a_large_organ_has_its_voxels():
    reference = np.ones((30, 40, 40), np.int16)
    reference[3, 3, 3:8] = 2
    predicted = torch.from_numpy(np.zeros_like(reference))
    sample = shown(BandSampler(reference, count=500), predicted, [0, 7, 30])
    assert len(sample.reference) == 500
    rare = sample.labels.reference == 2
    assert sorted(sample.labels.logits[rare, 0].tolist()) == list(
        np.flatnonzero(reference == 2)
    )
    assert (sample.labels.reference == 1).sum() == LABEL_SAMPLE
