"""Quantum noise: the statistics of counted photons."""

import torch

from trivox.projection.noise import add_noise


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_counts_are_poisson_with_mean_and_variance_of_what_passes():
    images = torch.full((40_000,), 2.0)
    noisy = add_noise(images, 1e4, generator=seeded())
    counts = 1e4 * torch.exp(-noisy)
    passed = 1e4 * torch.exp(-images[0])
    assert abs(counts.mean() / passed - 1) < 1e-3
    assert abs(counts.var() / passed - 1) < 0.03
    assert (
        abs(noisy.std() * passed.sqrt() - 1) < 0.03
    )  # noise of the logarithm: 1 / sqrt(counts)


def test_pixels_that_no_photon_reaches_stay_finite():
    noisy = add_noise(torch.full((100,), 60.0), 1e4, generator=seeded())
    torch.testing.assert_close(noisy, torch.full((100,), 1e4).log())


def test_noise_vanishes_with_many_photons_and_repeats_with_the_seed():
    images = torch.rand(2, 3, 8, 8) * 4
    assert (add_noise(images, 1e12, generator=seeded()) - images).abs().max() < 1e-4
    torch.testing.assert_close(
        add_noise(images, 1e3, generator=seeded(1)),
        add_noise(images, 1e3, generator=seeded(1)),
    )
    assert not torch.equal(
        add_noise(images, 1e3, generator=seeded(1)),
        add_noise(images, 1e3, generator=seeded(2)),
    )


def test_each_exam_may_have_its_own_dose():
    images = torch.full((2, 1, 100, 100), 1.0)
    noisy = add_noise(
        images, torch.tensor([1e3, 1e5]).view(2, 1, 1, 1), generator=seeded()
    )
    low, high = noisy.std(dim=(1, 2, 3)) * (torch.tensor([1e3, 1e5]) / torch.e).sqrt()
    assert abs(low - 1) < 0.05
    assert abs(high - 1) < 0.05
