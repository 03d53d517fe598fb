"""Intensity augmentation: each change against plain numpy, and only the chosen samples
change.
"""

import dataclasses

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import kstest

from trivox.config.options import Augmentation
from trivox.preparation.intensity import (
    IntensityChange,
    apply_intensity,
    draw_intensity,
    mirror,
)
from trivox.volumes.resampling import nearest

SHAPE = (2, 6, 9, 8)  # (c, z, y, x)


def change(**changes):
    """A neutral change of two channels, with some fields replaced."""
    neutral = IntensityChange(
        noise_sigma=0.0,
        noise_seed=1,
        blur_sigma=np.zeros((2, 3)),
        brightness=np.ones(2),
        contrast=np.ones(2),
        zoom=np.ones(2),
        gamma_inverted=np.ones(2),
        gamma=np.ones(2),
        mirror=(False, False, False),
    )
    return dataclasses.replace(neutral, **changes)


@pytest.fixture
def images():
    return torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(0)) * 2 + 1


CHANGES = {
    "noise": {"noise_sigma": 0.1},
    "blur": {"blur_sigma": np.array([[0, 0, 0], [0.6, 0.8, 1.0]])},
    "brightness": {"brightness": np.array([1, 1.25])},
    "contrast": {"contrast": np.array([1, 0.75])},
    "zoom": {"zoom": np.array([1, 0.5])},
    "gamma_inverted": {"gamma_inverted": np.array([1, 1.4])},
    "gamma": {"gamma": np.array([1, 0.7])},
}


def changed(images, *changes):
    return apply_intensity(images.clone(), changes)


def test_neutral_parameters_change_nothing(images):
    assert torch.equal(changed(images, change(), change(), change()), images)


@pytest.mark.parametrize("name", CHANGES)
def test_only_the_chosen_sample_and_channel_change(images, name):
    result = changed(images, change(), change(**CHANGES[name]), change())
    assert torch.equal(result[[0, 2]], images[[0, 2]])
    assert not torch.equal(result[1, 1], images[1, 1])
    assert torch.equal(result[1, 0], images[1, 0]) == (name != "noise")


@pytest.mark.parametrize("name", CHANGES)
def test_a_batch_equals_each_sample_alone(images, name):
    both = [change(**CHANGES[name]), change(), change(**CHANGES[name], noise_seed=9)]
    together = changed(images, *both)
    for image, one, result in zip(images, both, together, strict=True):
        torch.testing.assert_close(
            changed(image[None], one)[0], result, atol=1e-6, rtol=1e-6
        )


def second_channel(images, name):
    """Result and input of the changed channel as float64 numpy."""
    result = changed(images[:1], change(**CHANGES[name]))
    return result[0, 1].double().numpy(), images[0, 1].double().numpy()


def test_brightness_multiplies(images):
    result, image = second_channel(images, "brightness")
    np.testing.assert_allclose(result, 1.25 * image, rtol=1e-5)


def test_contrast_scales_about_the_mean_and_keeps_the_range(images):
    result, image = second_channel(images, "contrast")
    np.testing.assert_allclose(
        result, ((image - image.mean()) * 0.75 + image.mean()), atol=1e-5
    )
    stronger = (
        changed(images[:1], change(contrast=np.array([1, 1.25])))[0, 1].double().numpy()
    )
    expected = ((image - image.mean()) * 1.25 + image.mean()).clip(
        image.min(), image.max()
    )
    np.testing.assert_allclose(stronger, expected, atol=1e-5)
    assert (stronger.min(), stronger.max()) == (image.min(), image.max())


def test_blur_is_gaussian_with_a_sigma_an_axis(images):
    result, image = second_channel(images, "blur")
    np.testing.assert_allclose(
        result,
        ndimage.gaussian_filter(image, (0.6, 0.8, 1.0), mode="nearest"),
        atol=1e-5,
    )


def test_low_resolution_is_nearest_down_and_linear_up(images):
    result, image = second_channel(images, "zoom")
    for axis, size in enumerate(image.shape):
        image = image.take(nearest(size, round(size * 0.5)).numpy(), axis)
    up = torch.nn.functional.interpolate(
        torch.from_numpy(image)[None, None], size=SHAPE[1:], mode="trilinear"
    )
    np.testing.assert_allclose(result, up[0, 0].numpy(), atol=1e-5)


def gamma(image, exponent):
    low = image.min()
    span = image.max() - image.min()
    bent = ((image - low) / span) ** exponent * span + low
    return (bent - bent.mean()) / bent.std(ddof=1) * image.std(ddof=1) + image.mean()


def test_gamma_bends_the_range_and_keeps_mean_and_deviation(images):
    result, image = second_channel(images, "gamma")
    np.testing.assert_allclose(result, gamma(image, 0.7), atol=1e-4)
    assert result.mean() == pytest.approx(image.mean(), abs=1e-4)
    assert result.std() == pytest.approx(image.std(), rel=1e-4)


def test_inverted_gamma_bends_the_negative(images):
    result, image = second_channel(images, "gamma_inverted")
    np.testing.assert_allclose(result, -gamma(-image, 1.4), atol=1e-4)
    assert result.mean() == pytest.approx(image.mean(), abs=1e-4)


@pytest.mark.parametrize("name", [name for name in CHANGES if name != "noise"])
def test_a_constant_image_stays_finite(name):
    result = changed(torch.full((1, *SHAPE), 3.0), change(**CHANGES[name]))
    assert result.isfinite().all()


def test_noise_is_seeded_normal_and_has_the_asked_deviation():
    empty = torch.zeros(1, 2, 24, 24, 24)
    one = changed(empty, change(noise_sigma=0.3, noise_seed=7))
    assert torch.equal(one, changed(empty, change(noise_sigma=0.3, noise_seed=7)))
    assert not torch.equal(one, changed(empty, change(noise_sigma=0.3, noise_seed=8)))
    assert kstest(one.flatten().numpy()[::7], "norm", args=(0, 0.3)).pvalue > 0.001


def test_noise_does_not_depend_on_the_global_seed(images):
    results = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        results.append(changed(images[:1], change(noise_sigma=0.5)))
    assert torch.equal(*results)


@pytest.mark.parametrize(
    "axes", [(True, False, False), (False, True, True), (True, True, True)]
)
def test_mirroring_flips_image_and_label_alike_and_twice_is_the_identity(images, axes):
    labels = torch.randint(-1, 4, (3, *SHAPE[1:]), dtype=torch.int16)
    changes = [change(mirror=axes), change(), change(mirror=axes)]
    once = mirror(images.clone(), labels.clone(), changes)
    flipped = [axis for axis, flip in enumerate(axes) if flip]
    assert torch.equal(once[0][0], images[0].flip([axis + 1 for axis in flipped]))
    assert torch.equal(once[1][2], labels[2].flip(flipped))
    assert torch.equal(once[0][1], images[1])
    twice = mirror(*once, changes)
    assert torch.equal(twice[0], images)
    assert torch.equal(twice[1], labels)


def drawn(count, **settings):
    return [
        draw_intensity(np.random.default_rng([3, i]), Augmentation(**settings), 2)
        for i in range(count)
    ]


NEVER = dict.fromkeys(
    (
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "gamma_inverted",
        "gamma",
        "mirror",
    ),
    0,
)


def test_with_probability_zero_everything_is_neutral(images):
    for one in drawn(20, **NEVER):
        assert torch.equal(changed(images[:1], one), images[:1])
        assert one.mirror == (False, False, False)


def test_changes_happen_as_often_as_asked():
    made = drawn(3000)
    shares = {
        "noise": np.mean([c.noise_sigma > 0 for c in made]),
        "blur": np.mean([c.blur_sigma[:, 0] > 0 for c in made]),
        "low_resolution": np.mean([c.zoom < 1 for c in made]),
        "brightness": np.mean([(c.brightness != 1).all() for c in made]),
        "contrast": np.mean([(c.contrast != 1).all() for c in made]),
        "gamma_inverted": np.mean([(c.gamma_inverted != 1).all() for c in made]),
        "gamma": np.mean([(c.gamma != 1).all() for c in made]),
        "mirror": np.mean([c.mirror for c in made]),
    }
    settings = Augmentation()
    for name, share in shares.items():
        expected = getattr(settings, name) * (
            settings.per_channel if name in ("blur", "low_resolution") else 1
        )
        assert share == pytest.approx(expected, abs=0.03), name


def test_blur_zoom_and_noise_are_uniform_over_their_ranges():
    made = drawn(800, noise=1, blur=1, low_resolution=1, per_channel=1)
    drawn_values = {
        (0.0, 0.1): [c.noise_sigma for c in made],
        (0.5, 1.0): np.concatenate([c.blur_sigma.ravel() for c in made]),
    }
    for (low, high), values in drawn_values.items():
        assert kstest(values, "uniform", args=(low, high - low)).pvalue > 0.001
    assert (
        kstest(
            np.concatenate([c.zoom for c in made]), "uniform", args=(0.5, 0.5)
        ).pvalue
        > 0.001
    )


@pytest.mark.parametrize(
    ("name", "span"),
    [("brightness", (0.75, 1.25)), ("contrast", (0.75, 1.25)), ("gamma", (0.7, 1.5))],
)
def test_factors_fall_below_and_above_one_with_equal_chance_and_uniformly(name, span):
    values = np.concatenate([getattr(c, name) for c in drawn(800, **{name: 1})])
    assert (values < 1).mean() == pytest.approx(0.5, abs=0.05)
    assert (
        kstest(values[values < 1], "uniform", args=(span[0], 1 - span[0])).pvalue
        > 0.001
    )
    assert kstest(values[values > 1], "uniform", args=(1, span[1] - 1)).pvalue > 0.001


def test_only_the_listed_axes_are_mirrored():
    made = drawn(50, mirror=1, mirror_axes=("x",))
    assert {c.mirror for c in made} == {(False, False, True)}


def test_channels_draw_their_own_factors():
    (one,) = drawn(1, gamma=1, brightness=1)
    assert one.gamma[0] != one.gamma[1]
    assert one.brightness[0] != one.brightness[1]
