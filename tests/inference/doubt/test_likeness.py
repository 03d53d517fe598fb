"""Whether images are known for like or unlike those of a training set."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from trivox.inference.doubt.likeness import FEWEST, Likeness, learn_likeness, look_at

SHAPE = (20, 24, 28)
SPACING = (1.0, 0.9, 0.8)


def scan(seed, *, channels=2, shape=SHAPE):
    """Standardised smooth texture with some noise, another one for each seed."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.normal(size=(channels, *shape)), (0, 3, 3, 3))
    image = image / image.std(axis=(1, 2, 3), keepdims=True)
    image += rng.normal(0, 0.1, image.shape)
    return image.astype(np.float32)


def seen(image, *, source=SPACING, spacing=SPACING):
    return look_at(
        torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32)),
        channels=len(image),
        source_spacing=source,
        spacing=spacing,
    )


@pytest.fixture(scope="module")
def likeness():
    looks = [seen(scan(seed)) for seed in range(20)]
    learnt = learn_likeness(looks, channels=("T1", "T2"), axes=(0, 1, 2))
    return Likeness.model_validate_json(learnt.model_dump_json())


def test_images_of_the_same_kind_are_like_the_training_images(likeness):
    said = [likeness.complaints(seen(scan(seed))) for seed in range(100, 140)]
    assert sum(bool(sentences) for sentences in said) <= 1


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a + np.random.default_rng(0).normal(0, 1, a.shape),
        lambda a: gaussian_filter(a, (0, 2, 2, 2)),
        lambda a: a * 3,
        lambda a: a + 4,
        lambda a: np.random.default_rng(0).normal(0, 1, a.shape),
        lambda a: np.abs(a),
    ],
    ids=["noise", "blur", "contrast", "offset", "nothing but noise", "folded"],
)
def test_images_of_another_kind_are_not(likeness, change):
    for seed in range(100, 105):
        (first, *_) = likeness.complaints(seen(change(scan(seed))))
        assert first.startswith("intensities of T")


def test_the_channel_that_is_unlike_is_named(likeness):
    image = scan(100)
    image[1] *= 4
    (sentence,) = likeness.complaints(seen(image))
    assert sentence.startswith("intensities of T2 (distance ")


@settings(max_examples=20, deadline=None, derandomize=True)
@given(axis=st.integers(0, 2), factor=st.sampled_from([0.3, 0.6, 0.7, 1.4, 1.6, 4.0]))
def test_a_spacing_far_beyond_those_of_training_is_named_by_its_axis(
    likeness, axis, factor
):
    source = list(SPACING)
    source[axis] *= factor
    said = likeness.complaints(seen(scan(100), source=tuple(source)))
    beyond = not 1 / 1.5 <= factor <= 1.5
    assert bool(said) == beyond
    if beyond:
        assert said[0].startswith(f"a spacing along {'zyx'[axis]} of ")


def test_a_much_smaller_image_is_named_by_its_axis(likeness):
    (sentence, *_) = likeness.complaints(seen(scan(100, shape=(10, 24, 28))))
    assert sentence == ("a size along z of 10 mm, training images had 20 to 20 mm")


def test_axes_are_named_as_the_patients():
    looks = [seen(scan(seed)) for seed in range(FEWEST)]
    turned = learn_likeness(looks, channels=("T1", "T2"), axes=(2, 0, 1))
    (sentence, *_) = turned.complaints(seen(scan(100, shape=(10, 24, 28))))
    assert sentence.startswith("a size along x of 10 mm")


def test_an_absent_channel_is_no_complaint(likeness):
    image = scan(100)
    image[0] = 0
    assert likeness.complaints(seen(image)) == []


def test_training_images_that_are_all_alike_or_constant_can_be_learnt():
    looks = [seen(np.ones((1, *SHAPE)))] * FEWEST
    learnt = learn_likeness(looks, channels=("T1",), axes=(0, 1, 2))
    assert learnt.complaints(looks[0]) == []
    assert learnt.complaints(seen(scan(0, channels=1)))


def test_fewer_training_images_teach_nothing():
    looks = [seen(scan(seed)) for seed in range(FEWEST - 1)]
    assert learn_likeness(looks, channels=("T1", "T2"), axes=(0, 1, 2)) is None
