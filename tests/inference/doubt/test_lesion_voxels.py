"""Lesions of a reference: from what probability on each is found, whatever is sampled."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.datasets.labels import LabelScheme
from trivox.evaluation.conventions.lesions import match_lesions
from trivox.inference.doubt import lesion_voxels
from trivox.inference.doubt.lesion_voxels import LesionVoxels
from trivox.inference.doubt.missed import missed_share
from trivox.inference.doubt.sampling import BandSampler
from trivox.inference.doubt.uncertainty import probabilities_of

law = settings(max_examples=40, deadline=None, derandomize=True)
SIZES = st.tuples(*[st.integers(1, 9)] * 3)
LABELS = LabelScheme(labels={"a": 7, "b": 300})
REGIONS = LabelScheme(
    labels={"a": 1, "b": 2},
    regions={"whole": (1, 2), "core": (2,)},
    region_order=(1, 2),
)
WHOLE = SimpleNamespace(from_source=lambda array: array)


def scene(size, seed):
    """Reference indices, some ignored, and logits of three outputs."""
    rng = np.random.default_rng(seed)
    reference = (rng.random(size) < 0.2) * rng.integers(1, 3, size)
    reference[rng.random(size) < 0.1] = -1
    return reference.astype(np.int16), torch.from_numpy(rng.normal(0, 2, (3, *size)))


def sampled(reference, logits, scheme, edges, record=WHOLE):
    """What a sampler keeps of the lesions of a case that it sees in parts."""
    channels = logits[: scheme.output_channels].float()
    inside = np.ascontiguousarray(record.from_source(reference))
    lesions = LesionVoxels.of(reference, scheme, record)
    sampler = BandSampler(inside, lesions=lesions, count=5)
    labels = torch.zeros(inside.shape, dtype=torch.int16)
    for a, b in pairwise(edges):
        voxels = sampler.choose(a, labels[a:b])
        sampler.keep(channels[:, a:b][:, *voxels.T])
    return sampler.sample().lesions


@law
@given(
    size=SIZES,
    seed=st.integers(0, 999),
    scheme=st.sampled_from([LABELS, REGIONS]),
    data=st.data(),
)
def test_what_is_missed_is_what_the_metric_of_lesions_misses(size, seed, scheme, data):
    reference, logits = scene(size, seed)
    cuts = data.draw(st.lists(st.integers(0, size[0]), max_size=3))
    lesions = sampled(reference, logits, scheme, sorted({0, size[0], *cuts}))
    chances = lesions.chances(scheme, 1.0)
    outputs = logits[: scheme.output_channels].float()
    chance = probabilities_of(outputs, exclusive=scheme.exclusive)
    first = 1 if scheme.exclusive else 0
    for row, (target, indices) in enumerate(scheme.targets.items()):
        mask = np.isin(reference, indices)
        assert (target in chances) == mask.any()
        if not mask.any():
            continue
        for threshold in (0.2, 0.5, 0.9):
            marked = (chance[first + row] >= threshold).numpy()
            matched = match_lesions(marked, mask, dilation=0).found_by
            missed = np.mean([not finders for finders in matched.values()])
            assert missed_share(chances[target], threshold) == pytest.approx(missed)


@law
@given(seed=st.integers(0, 999), temperature=st.sampled_from([0.4, 1.0, 3.0]))
def test_calibrated_no_lesion_is_taken_for_more_probable_than_it_is(seed, temperature):
    """The voxel was chosen before the temperature was known."""
    reference, logits = scene((6, 7, 8), seed)
    chances = sampled(reference, logits, LABELS, [0, 6]).chances(LABELS, temperature)
    chance = probabilities_of(logits.float(), exclusive=True, temperature=temperature)
    for row, target in enumerate(LABELS.targets, start=1):
        mask = reference == row
        best = chance[row].numpy()[mask].max()
        assert chances[target].max() <= best + 1e-6
        for threshold in (0.2, 0.5, 0.9):
            marked = (chance[row] >= threshold).numpy()
            matched = match_lesions(marked, mask, dilation=0).found_by
            missed = np.mean([not finders for finders in matched.values()])
            assert missed_share(chances[target], threshold) >= missed - 1e-9


def test_lesions_outside_of_what_is_predicted_are_missed_whole():
    reference = np.zeros((4, 5, 12), np.int16)
    reference[1, 1, 1:4] = 1  # reaches into the prediction
    reference[3, 3, 0] = 1
    reference[2, 2, 8] = 2
    record = SimpleNamespace(
        from_source=lambda array: array[:, :, 3:].transpose(2, 1, 0)
    )
    logits = torch.zeros(3, 9, 5, 4)
    logits[1] = 3
    chances = sampled(reference, logits, LABELS, [0, 4, 9], record).chances(LABELS, 1.0)
    sure = float(np.exp(3) / (np.exp(3) + 2))
    assert sorted(chances["a"]) == pytest.approx([0, sure])
    assert chances["b"] == pytest.approx([1 / (np.exp(3) + 2)])


def test_no_lesions_are_none_and_a_blank_reference_teaches_nothing():
    blank = np.zeros((2, 3, 4), np.int16)
    lesions = sampled(blank, torch.zeros(3, 2, 3, 4), LABELS, [0, 2])
    assert lesions.chances(LABELS, 1.0) == {}


def test_large_lesions_and_many_are_drawn_from(monkeypatch):
    monkeypatch.setattr(lesion_voxels, "LESION_SAMPLE", 3)
    monkeypatch.setattr(lesion_voxels, "MOST_LESIONS", 4)
    reference = np.zeros((3, 3, 24), np.int16)
    reference[..., ::4] = 1  # six plates
    reference[1, 1, 2] = 2
    wanted = LesionVoxels.of(reference, LABELS, WHOLE)
    assert (wanted.numbers > 0).sum() == 3 * 4 + 1
    numbers, lesions = wanted.pairs
    assert sorted(numbers) == list(range(1, 14))
    assert np.bincount(lesions).tolist() == [3, 3, 3, 3, 1]
    assert wanted.targets.tolist() == [0, 0, 0, 0, 1]
    plates = {plate for *_, plate in np.argwhere(wanted.numbers.numpy() > 0)}
    assert len(plates - {2}) == 4
