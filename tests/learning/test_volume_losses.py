import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from thoraxes import chest
from trivox.config.volumes import ReconstructionLoss
from trivox.learning.losses import volumes as losses
from trivox.learning.losses.volumes import (
    VolumeCriterion,
    at_size_of,
    edges,
    spectrum,
)
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.xrays import Xrays

WINDOW = (-1024.0, 1476.0)
GRID = Grid((16, 16, 16), (20.0, 20.0, 20.0))
NAMES = tuple(ReconstructionLoss.model_fields)


def criterion(*only: str, **weights: float) -> VolumeCriterion:
    given = {
        name: weights.get(name, 1.0 if name in only or not (only or weights) else 0.0)
        for name in NAMES
    }
    return VolumeCriterion(
        ReconstructionLoss(**given), window=WINDOW, water_per_mm=0.02, grid=GRID
    )


def views(batch: int, *, present: list[list[bool]] | None = None) -> Xrays:
    geometry = Geometry.orbit([0, 90], detector=(16, 16), pixel_mm=30.0)
    there = (
        torch.ones(batch, 2, dtype=torch.bool)
        if present is None
        else torch.tensor(present)
    )
    return Xrays(torch.zeros(batch, 2, 16, 16), geometry, there)


def bodies(batch: int = 1, *, size: int = 16, seed: int = 0) -> torch.Tensor:
    """Ellipsoids of soft tissue with two lungs and a bright spine in air, normalised
    HU.
    """
    rng = np.random.default_rng(seed)
    z, y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 3, indexing="ij")
    hounsfield = np.full((batch, 1, size, size, size), -1000.0)
    for volume in hounsfield[:, 0]:
        a, b, c = rng.uniform(0.7, 0.95, 3)
        volume[(z / a) ** 2 + (y / b) ** 2 + (x / c) ** 2 < 1] = 40
        for side in (-1, 1):
            volume[
                (z / 0.6) ** 2
                + (y / 0.5) ** 2
                + ((x - side * 0.4) / rng.uniform(0.2, 0.35)) ** 2
                < 1
            ] = -850
        volume[(np.abs(x) < 0.13) & (np.abs(y + 0.5) < 0.13)] = 600
    return torch.from_numpy((hounsfield - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).float()


def blurred(volumes: torch.Tensor, sigma: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(
        ndimage.gaussian_filter(volumes.numpy(), (0, 0, sigma, sigma, sigma))
    )


def halves(volumes: torch.Tensor) -> list[torch.Tensor]:
    return [volumes, F.avg_pool3d(volumes, 2), F.avg_pool3d(volumes, 4)]


@pytest.mark.parametrize("name", NAMES)
def test_each_part_is_zero_at_identity_and_above_it_elsewhere(name):
    target = bodies(2)
    at_identity = criterion(name).parts(halves(target), target, views(2))
    assert list(at_identity) == [name]
    assert at_identity[name].item() == pytest.approx(0, abs=1e-6)
    assert criterion(name).parts(halves(blurred(target)), target, views(2))[name] > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_and_lead_towards_the_target(name):
    target = bodies()
    outputs = [scale.requires_grad_() for scale in halves(blurred(target))]
    before = criterion(name)(outputs, target, views(1))
    gradients = torch.autograd.grad(before, outputs)
    assert all(gradient.isfinite().all() for gradient in gradients)
    size = sum(gradient.square().sum() for gradient in gradients)
    assert size > 0
    steps = [
        output - 0.02 * before / size * gradient
        for output, gradient in zip(outputs, gradients, strict=True)
    ]
    assert criterion(name)(steps, target, views(1)) < before


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_where_prediction_and_target_are_equal_and_flat(name):
    flat = torch.zeros(1, 1, 16, 16, 16)
    outputs = [scale.requires_grad_() for scale in halves(flat)]
    gradients = torch.autograd.grad(criterion(name)(outputs, flat, views(1)), outputs)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_parts_are_of_the_order_of_one_where_the_mean_of_other_chests_is_the_answer():
    grid = Grid((32, 32, 32), (10.0, 10.0, 10.0))
    drawn = torch.stack(
        [torch.from_numpy(chest(grid, seed=seed)) for seed in range(30)]
    )[:, None]
    volumes = ((drawn - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).clamp(0, 1)
    target = volumes[:4]
    mean = volumes[4:].mean(0, keepdim=True).expand(4, -1, -1, -1, -1)
    loss = VolumeCriterion(
        ReconstructionLoss(), window=WINDOW, water_per_mm=0.02, grid=grid
    )
    parts = loss.parts(halves(mean), target, views(4))
    assert list(parts) == list(NAMES)
    assert all(0.4 < value < 2.5 for value in parts.values()), parts


def test_the_loss_is_the_weighted_sum_of_its_parts():
    target = bodies(2)
    weights = {name: 0.1 * (1 + index) for index, name in enumerate(NAMES)}
    loss = criterion(**weights)
    parts = loss.parts(halves(blurred(target)), target, views(2))
    expected = sum(weights[name] * value for name, value in parts.items())
    torch.testing.assert_close(
        loss(halves(blurred(target)), target, views(2)), expected
    )


def test_a_part_without_weight_is_not_computed(monkeypatch):
    def refuse(*_):
        raise AssertionError("computed")

    monkeypatch.setitem(losses.PARTS, "frequency", refuse)
    target = bodies()
    assert criterion("l1")(target, target, None) == 0
    assert criterion("l1").perceptual is None
    with pytest.raises(AssertionError, match="computed"):
        criterion("frequency")(target, target, None)


def test_every_output_has_a_gradient_even_where_its_part_has_no_weight():
    outputs = [scale.requires_grad_() for scale in halves(bodies())]
    criterion("l1")(outputs, bodies(seed=2), None).backward()
    assert [output.grad.abs().sum() > 0 for output in outputs] == [True, False, False]


def test_a_batch_costs_the_mean_of_what_each_costs_alone():
    target = bodies(3)
    prediction = blurred(bodies(3), 1.5)
    seen = views(3, present=[[True, True], [False, True], [False, False]])
    whole = criterion().parts(halves(prediction), target, seen)
    alone = [
        criterion().parts(
            halves(prediction[i : i + 1]), target[i : i + 1], seen[i : i + 1]
        )
        for i in range(3)
    ]
    for name, value in whole.items():
        torch.testing.assert_close(
            value, torch.stack([part[name] for part in alone]).mean()
        )


def test_half_precision_outputs_are_compared_in_fp32_under_autocast():
    target = bodies()
    prediction = blurred(bodies()).bfloat16()
    plain = criterion().parts(halves(prediction.float()), target, views(1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = criterion().parts(
            [prediction, *halves(prediction.float())[1:]], target, views(1)
        )
    for name, value in plain.items():
        torch.testing.assert_close(under[name], value)


def test_no_part_is_computed_under_autocast(monkeypatch):
    seen = []
    monkeypatch.setitem(
        losses.PARTS,
        "l1",
        lambda ours, _: seen.append(torch.is_autocast_enabled("cpu")) or ours.mean(),
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        criterion("l1")(bodies(), bodies(), None)
    assert seen == [False]


@settings(max_examples=6, deadline=None, derandomize=True)
@given(shape=st.tuples(*[st.integers(3, 9)] * 3), seed=st.integers(0, 99))
def test_edges_are_those_of_the_three_dimensional_sobel_operator(shape, seed):
    volume = np.random.default_rng(seed).random(shape)
    expected = (
        np.sqrt(sum(ndimage.sobel(volume, axis) ** 2 for axis in range(3)))[
            1:-1, 1:-1, 1:-1
        ]
        / 32
    )
    result = edges(torch.from_numpy(volume)[None, None])[0, 0]
    np.testing.assert_allclose(result, expected, atol=1e-9)


def test_edges_do_not_notice_a_shift_of_all_values():
    target = bodies()
    assert criterion("edge")(target + 0.3, target, None) < 1e-4
    assert criterion("l1")(target + 0.3, target, None) > 1


@settings(max_examples=6, deadline=None, derandomize=True)
@given(shape=st.tuples(*[st.integers(1, 9)] * 3), seed=st.integers(0, 99))
def test_the_spectrum_keeps_the_mean_square(shape, seed):
    volume = torch.from_numpy(np.random.default_rng(seed).random((1, 1, *shape)))
    magnitude, share = spectrum(volume)
    assert (magnitude.square() * share).sum().item() == pytest.approx(
        volume.square().mean().item()
    )
    assert (share.sum() * math.prod(shape[:2])).item() == pytest.approx(1)


def test_an_error_of_equal_size_costs_more_at_a_higher_frequency():
    x = torch.arange(16) * (2 * torch.pi / 16)
    target = torch.zeros(1, 1, 16, 16, 16)
    slow, fast = (
        criterion("frequency")(target + (k * x).cos(), target, None).item()
        for k in (1, 4)
    )
    weight = [0.1 + k / 16 / math.sqrt(0.75) for k in (1, 4)]
    assert fast / slow == pytest.approx(weight[1] / weight[0], rel=1e-4)


def test_supervision_weighs_each_coarser_output_half_as_much_against_averages_of_the_target():
    target = bodies()
    _, half, quarter = halves(target)
    first = criterion("deep_supervision").parts(
        [target, half + 0.1, quarter], target, None
    )["deep_supervision"]
    second = criterion("deep_supervision").parts(
        [target, half, quarter + 0.1], target, None
    )["deep_supervision"]
    assert (first / second).item() == pytest.approx(2, rel=1e-4)


def test_a_coarser_output_is_compared_with_the_average_of_the_target():
    target = bodies()
    coarse = halves(target)[1]
    assert all(
        value < 1e-5 for value in criterion().parts(coarse, target, views(1)).values()
    )
    assert torch.equal(at_size_of(coarse, target), coarse)


def test_the_reprojection_is_the_difference_of_line_integrals_of_the_views_that_are_present():
    target = bodies(2)
    prediction = blurred(target)
    seen = views(2, present=[[True, False], [False, False]])
    result = criterion("reprojection").parts(prediction, target, seen)["reprojection"]
    low, high = WINDOW
    water = [
        attenuation_of(volume[:1, 0] * (high - low) + low)
        for volume in (prediction, target)
    ]
    images = [
        losses.Projector(seen.geometry, GRID).project(volume)[:, 0] for volume in water
    ]
    expected = (images[0] - images[1]).abs().mean() / 2 / losses.SCALES["reprojection"]
    torch.testing.assert_close(result, expected)


def test_without_views_there_is_no_reprojection():
    target = bodies()
    loss = criterion("l1", "reprojection")
    assert list(loss.parts(target, target, None)) == ["l1"]
    assert list(loss.parts(target, target, views(1).select([]))) == ["l1"]
