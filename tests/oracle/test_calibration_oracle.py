"""Parity of the calibration errors with MONAI, whose bins are `(lower, upper]` by class
as well.
"""

import numpy as np
import pytest

from trivox.evaluation.metrics.calibration import (
    classwise_calibration_error,
    reliability_curve,
)

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
    ),
]


@pytest.fixture(scope="module")
def calibration():
    return pytest.importorskip("monai.metrics.calibration", exc_type=ImportError)


def drawn(seed, classes=3, voxels=4000):
    rng = np.random.default_rng(seed)
    chance = rng.dirichlet(np.full(classes, 0.4), voxels).astype(np.float32)
    return chance, rng.integers(0, classes, voxels)


def batched(chance, labels):
    """`(1, c, n, 1)`, as MONAI wants it."""
    import torch

    one_hot = np.eye(chance.shape[1], dtype=np.float32)[labels]
    return [torch.from_numpy(a.T.copy())[None, :, :, None] for a in (chance, one_hot)]


@pytest.mark.parametrize("bins", [5, 15, 20])
@pytest.mark.parametrize("seed", range(3))
def test_classwise_error(calibration, seed, bins):
    chance, labels = drawn(seed)
    metric = calibration.CalibrationErrorMetric(
        num_bins=bins, include_background=True, calibration_reduction="expected"
    )
    metric(*batched(chance, labels))
    expected = pytest.approx(metric.aggregate().item(), abs=1e-5)
    assert classwise_calibration_error(chance, labels, bins=bins) == expected


@pytest.mark.parametrize("bins", [5, 15])
def test_bins(calibration, bins):
    chance, labels = drawn(7)
    binning = calibration.calibration_binning(*batched(chance, labels), num_bins=bins)
    means, truths, counts = (tensor.numpy()[0] for tensor in binning)
    for k in range(3):
        curve = reliability_curve(chance[:, k], labels == k, bins=bins)
        assert np.array(curve["count"]) == pytest.approx(counts[k])
        filled = counts[k] > 0
        confidence = np.array(curve["confidence"], float)[filled]
        accuracy = np.array(curve["accuracy"], float)[filled]
        assert confidence == pytest.approx(means[k][filled], abs=1e-5)
        assert accuracy == pytest.approx(truths[k][filled], abs=1e-5)
