import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import recall_score

from thoraxes import chest
from trivox.datasets.phantoms.thorax_anatomy import draw_thorax
from trivox.learning.losses.perceptual import (
    ENCODER_FILE,
    WINDOW,
    PerceptualDifference,
    TissueEncoder,
)
from trivox.projection.geometry import Grid

TRAINED = "3ecd78941e599329fe9ce0fe218ea405e9e34f4cacab89e9df470128c62675b4"
"""Of the file that scripts/train_perceptual.py wrote; a change of the encoder changes
what losses mean.
"""


def chests(size: int = 32, *, count: int = 1) -> torch.Tensor:
    grid = Grid((size,) * 3, (320 / size,) * 3)
    volumes = torch.stack(
        [torch.from_numpy(chest(grid, seed=seed)) for seed in range(count)]
    )[:, None]
    return (volumes - WINDOW[0]) / (WINDOW[1] - WINDOW[0])


def blurred(volumes: torch.Tensor, times: int) -> torch.Tensor:
    for _ in range(times):
        volumes = F.avg_pool3d(F.pad(volumes, (1,) * 6, mode="replicate"), 3, 1)
    return volumes


@pytest.fixture(scope="module")
def difference():
    return PerceptualDifference(window=WINDOW)


def test_the_shipped_encoder_is_the_one_that_was_trained(difference):
    assert hashlib.sha256(ENCODER_FILE.read_bytes()).hexdigest() == TRAINED
    assert ENCODER_FILE.stat().st_size < 2e6
    assert not any(parameter.requires_grad for parameter in difference.parameters())


def test_its_features_tell_tissues_apart_better_than_those_of_an_untrained_encoder(
    difference,
):
    """Linear read-outs fitted on some chests, scored on others."""
    torch.manual_seed(0)
    trained, untrained = (
        read_out_accuracy(encoder) for encoder in (difference.encoder, TissueEncoder())
    )
    assert trained > 0.7
    assert trained > untrained + 0.05


def read_out_accuracy(encoder: TissueEncoder) -> float:
    """Balanced accuracy of linear discriminants on the channels of all scales."""
    grid = Grid((32, 32, 32), (10.0, 10.0, 10.0))
    drawn = [draw_thorax(np.random.default_rng(seed), grid) for seed in range(8)]
    volumes = torch.stack([torch.from_numpy(one.hounsfield) for one in drawn])[:, None]
    labels = np.stack([one.tissues for one in drawn])
    with torch.no_grad():
        scales = encoder((volumes - WINDOW[0]) / (WINDOW[1] - WINDOW[0]))
    resized = [F.interpolate(scale, size=32, mode="trilinear") for scale in scales]
    features = (
        torch.cat(resized, dim=1).movedim(1, -1).double().numpy()
    )  # (b, z, y, x, c)
    learn, test = (
        (features[part][:, ::2, ::2, ::2], labels[part][:, ::2, ::2, ::2])
        for part in (slice(5), slice(5, 8))
    )
    priors = np.full(len(np.unique(learn[1])), 1 / len(np.unique(learn[1])))
    readout = LinearDiscriminantAnalysis(priors=priors).fit(
        learn[0].reshape(-1, 56), learn[1].ravel()
    )
    return float(
        recall_score(
            test[1].ravel(),
            readout.predict(test[0].reshape(-1, 56)),
            average="macro",
            zero_division=0,
        )
    )


def test_the_difference_grows_with_the_blur(difference):
    sharp = chests(count=2)
    costs = [difference(blurred(sharp, times), sharp).item() for times in range(4)]
    assert costs[0] == 0
    assert costs == sorted(costs)
    assert costs[3] > 1.5 * costs[1] > 0


@pytest.mark.parametrize("shape", [(32, 32, 32), (64, 48, 40), (7, 4, 9)])
def test_it_takes_volumes_of_any_size_with_finite_gradients(difference, shape):
    target = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0))
    prediction = (target + 0.1).requires_grad_(True)
    difference(prediction, target).backward()
    assert prediction.grad.isfinite().all()
    assert prediction.grad.abs().sum() > 0


@pytest.mark.slow
def test_it_takes_a_volume_of_128(difference):
    target = chests(128)
    assert 0 < difference(blurred(target, 1), target) < 10


def test_volumes_of_another_window_are_seen_in_the_same_hounsfield_units(difference):
    sharp = chests()
    soft = blurred(chests(), 1)
    low = -1000.0
    high = 1024.0
    other = [
        (volume * (WINDOW[1] - WINDOW[0]) + WINDOW[0] - low) / (high - low)
        for volume in (soft, sharp)
    ]
    cost = PerceptualDifference(window=(low, high))(*other)
    torch.testing.assert_close(cost, difference(soft, sharp), rtol=1e-4, atol=1e-6)


def test_every_channel_speaks_on_a_chest(difference):
    for scale in difference.encoder.normalised(chests(count=4)):
        spread = scale.transpose(0, 1).flatten(1).std(1)
        assert spread.max() < 4
        assert (spread > 0.01).float().mean() > 0.9
