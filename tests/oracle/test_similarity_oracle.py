"""3-D SSIM against scikit-image's and MONAI's, over the places where the weights lie
inside the volume whole.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from trivox.learning.losses.similarity import ssim3d

monai = pytest.importorskip("monai.metrics.regression", reason="MONAI is the oracle")
skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is the oracle")

pytestmark = pytest.mark.oracle


def pair(*shape, seed=0):
    rng = np.random.default_rng(seed)
    first = gaussian_filter(rng.random(shape), (0, 0, 1, 1, 1)) * 2 - 0.5
    second = first + 0.1 * rng.standard_normal(shape)
    return torch.from_numpy(first).float(), torch.from_numpy(second).float()


@settings(max_examples=8, deadline=None, derandomize=True)
@given(shape=st.tuples(*[st.integers(11, 20)] * 3), seed=st.integers(0, 99))
def test_ssim_is_that_of_scikit_image(shape, seed):
    prediction, target = pair(1, 1, *shape, seed=seed)
    expected = skimage.structural_similarity(
        prediction[0, 0].double().numpy(),
        target[0, 0].double().numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1,
    )
    assert ssim3d(prediction, target).item() == pytest.approx(expected, abs=1e-5)


def test_ssim_is_that_of_monai():
    prediction, target = pair(2, 1, 14, 13, 16)
    similarity, _ = monai.compute_ssim_and_cs(
        prediction,
        target,
        spatial_dims=3,
        kernel_size=(11,) * 3,
        kernel_sigma=(1.5,) * 3,
        data_range=1.0,
    )
    expected = similarity.flatten(1).mean(1)
    torch.testing.assert_close(ssim3d(prediction, target), expected, atol=1e-5, rtol=0)
