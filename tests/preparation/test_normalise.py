"""Normalisation schemes against their definitions in plain numpy."""

import numpy as np
import pytest

from trivox.planning.plan import Normalisation
from trivox.preparation.normalise import foreground_mask, normalise


@pytest.fixture
def image():
    rng = np.random.default_rng(0)
    array = np.zeros((2, 8, 9, 10), np.float32)
    array[:, 2:7, 2:8, 1:9] = rng.normal(100, 30, (2, 5, 6, 8))
    array[:, 4, 4, 4] = 0  # a hole
    return array


def only(scheme, **settings):
    return (Normalisation(scheme=scheme, **settings), Normalisation(scheme="none"))


def test_ct_clips_to_the_trainings_percentiles_and_scales_by_its_statistics(image):
    result = normalise(image, only("ct", mean=90.0, std=20.0, low=60.0, high=140.0))
    np.testing.assert_allclose(result[0], (image[0].clip(60, 140) - 90) / 20, rtol=1e-5)
    assert result[0].min() == pytest.approx(-1.5)
    assert result[0].max() == pytest.approx(2.5)


def test_a_z_score_has_mean_0_and_deviation_1(image):
    result = normalise(image, only("z-score"))[0]
    assert result.mean() == pytest.approx(0, abs=1e-5)
    assert result.std() == pytest.approx(1, abs=1e-5)


def test_a_masked_z_score_uses_the_inside_only_and_leaves_the_outside_zero(image):
    result = normalise(image, only("z-score", masked=True))[0]
    mask = foreground_mask(image)
    assert result[mask].mean() == pytest.approx(0, abs=1e-5)
    assert result[mask].std() == pytest.approx(1, abs=1e-5)
    assert not result[~mask].any()


def test_the_mask_is_any_channel_with_holes_filled(image):
    image[1, 0, 0, 0] = 5
    mask = foreground_mask(image)
    assert mask[4, 4, 4]
    assert mask[0, 0, 0]
    assert not mask[0, 0, 1]


def test_rescale_runs_from_0_to_1(image):
    result = normalise(image, only("rescale-0-1"))[0]
    assert (result.min(), result.max()) == (0, 1)
    np.testing.assert_allclose(result, image[0] / image[0].max(), atol=1e-6)


def test_rgb_divides_by_255(image):
    np.testing.assert_allclose(
        normalise(image, only("rgb-0-1"))[0], image[0] / 255, rtol=1e-6
    )


def test_none_keeps_the_values_and_channels_are_independent(image):
    np.testing.assert_array_equal(normalise(image, only("z-score"))[1], image[1])


@pytest.mark.parametrize("scheme", ["z-score", "rescale-0-1", "ct", "rgb-0-1", "none"])
@pytest.mark.parametrize("kind", [np.float32, np.int16])
def test_the_callers_image_is_left_alone_and_the_result_is_float32(image, scheme, kind):
    given = image.astype(kind)
    before = given.copy()
    assert normalise(given, only(scheme)).dtype == np.float32
    np.testing.assert_array_equal(given, before)


@pytest.mark.parametrize("scheme", ["z-score", "rescale-0-1"])
@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_stays_finite(scheme, value):
    constant = np.full((2, 4, 4, 4), value, np.float32)
    for masked in (False, True):
        assert not normalise(constant, only(scheme, masked=masked))[0].any()
