"""Candidates for lesions: what they are in any volume of probabilities, and by hand."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter, label

from trivox.inference.detection.candidates import (
    FACTOR,
    FLOOR,
    MOST,
    SPECK,
    candidates_of,
    detection_map,
    is_detection_map,
)

CUBE = np.ones((3, 3, 3))
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 14), st.integers(1, 14))
CHANCES = st.floats(0, 1, width=32)


def blob(shape, centre, radius, peak):
    """A smooth peak, `(z, y, x)`."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    apart = ((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2).sum(0)
    return (peak * np.exp(-apart / (2 * radius**2))).astype(np.float32)


def smooth(seed, shape):
    """Probabilities with structures of several voxels."""
    noise = gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    stretched = (noise - noise.min()) / max(np.ptp(noise), 1e-9)
    return (stretched**3).astype(np.float32)


def require_lawful(chance, detections):
    assert detections.dtype == np.float32
    assert detections.shape == chance.shape
    numbers, likelihoods = candidates_of(detections)
    count = label(detections > 0, CUBE)[1]  # by corners too: no two touch
    assert len(likelihoods) == count <= MOST
    assert detections.max() == max(likelihoods, default=0)
    for number, likelihood in enumerate(likelihoods, start=1):
        inside = numbers == number
        assert inside.sum() > SPECK
        assert likelihood >= np.float32(FLOOR)
        assert np.unique(detections[inside]).tolist() == [likelihood]
        assert chance[inside].max() == likelihood
        assert chance[inside].min() >= np.float32(likelihood / FACTOR)


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 2**32))
def test_candidates_are_apart_and_each_has_its_peak(shape, seed):
    chance = smooth(seed, shape)
    detections = detection_map(chance)
    require_lawful(chance, detections)
    assert is_detection_map(detections)


def test_probabilities_are_no_detection_map():
    chance = blob((6, 9, 9), (3, 4, 4), 2, 0.9)
    assert not is_detection_map(chance)
    assert is_detection_map(chance * 0)


@settings(max_examples=40)
@given(arrays(np.float32, SHAPES, elements=CHANCES))
def test_any_probabilities_give_a_lawful_map(chance):
    require_lawful(chance, detection_map(chance))


@settings(max_examples=40)
@given(SHAPES, st.integers(0, 2**32), st.permutations(range(3)))
def test_the_order_of_axes_changes_nothing(shape, seed, order):
    chance = smooth(seed, shape)
    turned = detection_map(np.ascontiguousarray(chance.transpose(order)))
    assert np.array_equal(turned, detection_map(chance).transpose(order))


def test_without_a_lesion_all_is_zero():
    nothing = np.full((4, 5, 6), FLOOR * 0.9, np.float32)
    assert not detection_map(nothing).any()
    assert candidates_of(detection_map(nothing))[1] == []


def test_two_lesions_are_two_candidates_and_a_halo_is_none():
    shape = (20, 24, 40)
    first = blob(shape, (10, 12, 8), 3, 0.9)
    second = blob(shape, (10, 12, 30), 2, 0.3)
    numbers, likelihoods = candidates_of(detection_map(first + second))
    assert sorted(likelihoods) == [np.float32(0.3), np.float32(0.9)]
    assert numbers[10, 12, 8] != numbers[10, 12, 30]
    sizes = np.bincount(numbers.ravel())[1:]
    # exp(-d^2 / 2 r^2) = 1 / 2.5: a ball of radius 1.35 r
    expected = [4 / 3 * np.pi * (1.354 * r) ** 3 for r in (3, 2)]
    assert np.allclose(sorted(sizes), sorted(expected), rtol=0.15)


def test_a_speck_hides_no_lesion():
    chance = blob((16, 16, 24), (8, 8, 16), 2, 0.2)
    chance[2, 2, 2] = 1.0
    assert candidates_of(detection_map(chance))[1] == [np.float32(0.2)]
