import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from trivox.learning.losses.similarity import psnr, ssim3d


def pair(*shape: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    first = gaussian_filter(rng.random(shape), (0, 0, 1, 1, 1)) * 2 - 0.5
    return tuple(
        torch.from_numpy(v).float()
        for v in (first, first + 0.1 * rng.standard_normal(shape))
    )


def test_psnr_is_that_of_the_mean_squared_error_over_the_whole_volume():
    target = torch.full((2, 1, 4, 5, 6), 0.5)
    prediction = target + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1, 1)
    torch.testing.assert_close(
        psnr(prediction, target), torch.tensor([20.0, 40.0]), atol=1e-3, rtol=0
    )


def test_psnr_does_not_depend_on_what_lies_outside_the_window():
    prediction, target = pair(1, 1, 8, 8, 8)
    prediction = prediction * 4 - 1.5
    target = target * 4 - 1.5
    assert torch.equal(
        psnr(prediction, target), psnr(prediction.clamp(0, 1), target.clamp(0, 1))
    )
    assert torch.equal(
        psnr(prediction - 9, target), psnr(torch.zeros_like(target), target)
    )


def test_equal_volumes_have_a_finite_psnr_and_an_ssim_of_one():
    volume = pair(2, 1, 12, 12, 12)[0]
    assert psnr(volume, volume).tolist() == [100, 100]
    torch.testing.assert_close(ssim3d(volume, volume), torch.ones(2))


def test_ssim_follows_the_shorter_axes_of_small_volumes():
    prediction, target = pair(1, 1, 4, 12, 1)
    assert 0 < ssim3d(prediction, target) < 1
    torch.testing.assert_close(ssim3d(target, target), torch.ones(1))


def test_a_batch_scores_what_each_volume_scores_alone():
    prediction, target = pair(3, 1, 12, 11, 13)
    for score in (psnr, ssim3d):
        alone = torch.cat(
            [score(p[None], t[None]) for p, t in zip(prediction, target, strict=True)]
        )
        torch.testing.assert_close(score(prediction, target), alone)


def test_ssim_is_computed_in_fp32_under_autocast():
    prediction, target = pair(1, 1, 12, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = ssim3d(prediction, target)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ssim3d(prediction, target))


def test_ssim_falls_as_the_blur_grows():
    target = pair(1, 1, 20, 20, 20)[1]
    blurred = [
        torch.from_numpy(gaussian_filter(target.numpy(), (0, 0, s, s, s)))
        for s in (0.5, 1.0, 2.0)
    ]
    scores = [ssim3d(volume, target).item() for volume in blurred]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.8
