"""What raters agree on: the majority, and STAPLE as ITK finds it."""

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from trivox.evaluation.folders.consensus import majority, staple

law = settings(max_examples=40, deadline=None, derandomize=True)


def rated(raters, seed, shape=(10, 16, 18)):
    """Masks of a structure, as raters of different care draw it."""
    rng = np.random.default_rng(seed)
    truth = gaussian_filter(rng.normal(size=shape), 2)
    masks = []
    for _ in range(raters):
        noise = gaussian_filter(rng.normal(size=shape), 1) * rng.uniform(0.1, 0.6)
        drawn = truth + noise
        masks.append(drawn > np.quantile(drawn, rng.uniform(0.8, 0.95)))
    return np.stack(masks)


@pytest.mark.parametrize("raters", [3, 4, 5, 9])
@pytest.mark.parametrize("seed", [0, 1])
def test_staple_is_that_of_itk(raters, seed):
    masks = rated(raters, seed)
    oracle = SimpleITK.STAPLEImageFilter()
    oracle.SetForegroundValue(1)
    images = [SimpleITK.GetImageFromArray(mask.astype(np.uint8)) for mask in masks]
    chances = SimpleITK.GetArrayFromImage(oracle.Execute(images))
    agreed = staple(masks)
    assert np.array_equal(agreed.mask, chances > 0.5)
    assert agreed.mask.any()
    assert agreed.sensitivity == pytest.approx(oracle.GetSensitivity(), abs=1e-5)
    assert agreed.specificity == pytest.approx(oracle.GetSpecificity(), abs=1e-5)


def test_careless_raters_count_less():
    rng = np.random.default_rng(3)
    truth = rated(1, 3)[0]
    careful = [truth ^ (rng.random(truth.shape) < 0.05) for _ in range(3)]
    careless = [rng.random(truth.shape) < 0.5 for _ in range(2)]
    masks = np.stack([*careful, *careless])
    agreed = staple(masks)
    wrong = (agreed.mask != truth).mean()
    assert wrong < 0.02 < (majority(masks) != truth).mean()
    assert agreed.sensitivity == pytest.approx([0.95] * 3 + [0.5] * 2, abs=0.1)
    assert agreed.specificity == pytest.approx([0.95] * 3 + [0.5] * 2, abs=0.05)


@law
@given(raters=st.integers(2, 6), seed=st.integers(0, 999), data=st.data())
def test_the_order_of_raters_does_not_matter_and_all_that_agree_win(raters, seed, data):
    masks = np.random.default_rng(seed).random((raters, 3, 4, 5)) < 0.4
    order = data.draw(st.permutations(range(raters)))
    agreed = staple(masks)
    other = staple(masks[list(order)])
    assert np.array_equal(majority(masks), majority(masks[list(order)]))
    assert other.sensitivity == pytest.approx(agreed.sensitivity[list(order)], abs=1e-6)
    same = np.stack([masks[0]] * raters)
    assert np.array_equal(staple(same).mask, masks[0])
    assert np.array_equal(majority(same), masks[0])
    assert not majority(masks)[~masks.any(0)].any()
    assert majority(masks)[masks.all(0)].all()


@pytest.mark.parametrize("value", [False, True])
def test_where_nobody_or_everybody_marks_all_nothing_is_known_of_raters(value):
    masks = np.full((3, 2, 2, 2), value)
    agreed = staple(masks)
    assert np.array_equal(agreed.mask, masks[0])
    assert np.isnan(agreed.sensitivity).all()


def test_the_majority_of_two_is_what_both_have():
    masks = np.array([[True, True, False], [True, False, False]])
    assert majority(masks).tolist() == [True, False, False]
    three = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 0]], bool)
    assert majority(three).tolist() == [True, True, False]
