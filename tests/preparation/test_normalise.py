"""Normalisation schemes against their definitions in plain numpy."""

import numpy as np
import pytest

from trivox.planning.plan import Normalisation
from trivox.preparation import normalise as module
from trivox.preparation.normalise import NormalisedRows, foreground_mask, normalise


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


SCHEMES = {
    "ct": Normalisation(scheme="ct", mean=90.0, std=21.0, low=-60.0, high=140.0),
    "z-score": Normalisation(scheme="z-score"),
    "masked": Normalisation(scheme="z-score", masked=True),
    "rescale": Normalisation(scheme="rescale-0-1"),
    "rgb": Normalisation(scheme="rgb-0-1"),
    "none": Normalisation(scheme="none"),
}
schemes = pytest.mark.parametrize("how", SCHEMES.values(), ids=SCHEMES)


def as_before(image, how):
    """A channel by the formulas on a whole copy in float32."""
    channel = np.array(image[0], dtype=np.float32, order="C")
    mask = foreground_mask(image)
    if how.scheme == "ct":
        channel = channel.clip(np.float32(how.low), np.float32(how.high))
        return (channel - np.float32(how.mean)) / np.float32(how.std)
    if how.scheme == "z-score":
        inside = channel[mask] if how.masked else channel
        mean = np.float32(inside.mean(dtype=np.float64))
        deviation = np.float32(inside.std(dtype=np.float64))
        scaled = (channel - mean) / deviation
        return np.where(mask, scaled, 0) if how.masked else scaled
    if how.scheme == "rescale-0-1":
        return (channel - channel.min()) / (channel.max() - channel.min())
    return channel / np.float32(255 if how.scheme == "rgb-0-1" else 1)


def drawn_scan(kind):
    rng = np.random.default_rng(7)
    scan = np.zeros((1, 37, 70, 61), kind)
    values = rng.normal(40, 300, (30, 50, 41))
    scan[0, 3:33, 5:55, 9:50] = values if kind == np.float32 else values.astype(kind)
    return scan[:, ::-1, :, ::-1].swapaxes(1, 2)  # no order of memory is special


@schemes
@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32])
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_stored_values_are_normalised_to_the_last_bit_as_in_single_precision(how, kind):
    image = drawn_scan(kind)
    np.testing.assert_array_equal(normalise(image, [how])[0], as_before(image, how))


@schemes
def test_some_rows_at_a_time_are_those_of_the_whole(how):
    image = drawn_scan(np.int16)
    whole = normalise(image, [how])
    rows = NormalisedRows.of(image, [how]).ordered((2, 0, 1))
    parts = [rows.take(at, at + 4).numpy() for at in range(0, rows.size[1], 4)]
    together = np.concatenate(parts, axis=1)
    np.testing.assert_array_equal(together, whole.transpose(0, 3, 1, 2))


@pytest.mark.parametrize("count", [1, 7, 129, 1000, 100_003])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_a_deviation_in_parts_is_numpys_to_the_last_bit(monkeypatch, count, kind):
    monkeypatch.setattr(module, "AT_ONCE", 128)
    values = np.random.default_rng(count).normal(100, 400, count).astype(kind)
    mean = values.mean(dtype=np.float64)
    assert module._deviation(values, mean) == values.std(dtype=np.float64)


def test_values_that_single_precision_does_not_hold_are_rounded_first():
    image = np.full((1, 3, 3, 3), 2**24 + 1, np.int32)
    image[0, 0] = 3
    how = Normalisation(scheme="z-score")
    np.testing.assert_array_equal(
        normalise(image, [how]), normalise(image.astype(np.float32), [how])
    )
