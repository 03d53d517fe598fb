"""Laws of SIRT, data consistency and total variation."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize, nnls

from trivox.projection.geometry import Geometry, Grid
from trivox.projection.iterative import (
    SirtStep,
    _gradient,
    _gradient_adjoint,
    sirt,
    tv,
)
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

GRID = Grid((12, 14, 16), (10.0, 10.0, 10.0))


def blocks(grid=GRID, dtype=torch.float32):
    """A piecewise-constant body with a dense and an empty block, `(1, z, y, x)` 1/mm."""
    z, y, x = grid.shape
    volume = torch.zeros(1, z, y, x, dtype=dtype)
    volume[:, 2:-2, 2:-2, 2:-2] = 0.02
    volume[:, 3:7, 4:8, 3:6] = 0.04
    volume[:, 4:9, 5:9, 8:12] = 0.0
    return volume


def orbit(views, detector=(20, 24), pixel_mm=14.0):
    return Geometry.orbit(
        [180 * i / views + 7 for i in range(views)],
        detector=detector,
        pixel_mm=pixel_mm,
    )


def exam(views, volume=None):
    geometry = orbit(views)
    projector = Projector(geometry, GRID)
    return Xrays.of(
        projector.project(blocks() if volume is None else volume), geometry
    ), projector


def relative(found, truth):
    return float((found - truth).norm() / truth.norm())


def residual(volume, xrays, projector):
    return relative(projector.project(volume), xrays.images)


def dense(views=6):
    """A tiny problem in float64 with its system matrix as an array."""
    grid = Grid((3, 4, 4), (20.0, 20.0, 20.0))
    geometry = orbit(views, detector=(6, 8), pixel_mm=17.0).to(torch.float64)
    projector = Projector(geometry, grid)
    units = torch.eye(48, dtype=torch.float64).view(48, *grid.shape)
    matrix = projector.project(units).flatten(1).T.numpy()
    return projector, matrix


# -- SIRT ------------------------------------------------------------------------------
def test_more_iterations_explain_the_xrays_better():
    xrays, projector = exam(3)
    residuals = []
    for count in (1, 2, 5, 10, 20):
        volume = sirt(xrays, projector, iterations=count, momentum=False)
        residuals.append(residual(volume, xrays, projector))
    assert all(later < before for before, later in itertools.pairwise(residuals))
    assert residuals[-1] < 0.05


def test_ten_iterations_with_momentum_do_the_work_of_twenty_five_without():
    xrays, projector = exam(8)
    fast = sirt(xrays, projector, iterations=10, momentum=True)
    slow = sirt(xrays, projector, iterations=25, momentum=False)
    short = sirt(xrays, projector, iterations=10, momentum=False)
    assert relative(fast, blocks()) < 1.05 * relative(slow, blocks())
    assert relative(short, blocks()) > 1.2 * relative(fast, blocks())


def test_many_views_give_the_volume_back():
    xrays, projector = exam(24)
    errors = [
        relative(sirt(xrays, projector, iterations=n), blocks()) for n in (10, 60)
    ]
    assert errors[1] < 0.09
    assert errors[1] < 0.4 * errors[0]


def test_equals_non_negative_weighted_least_squares():
    projector, matrix = dense()
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 0.03, 48) * (rng.uniform(size=48) < 0.6)
    measured = matrix @ truth + rng.normal(0, 0.02, len(matrix))
    sums = matrix.sum(1)
    root = np.sqrt(np.divide(1, sums, out=np.zeros_like(sums), where=sums > 0.02))
    expected, _ = nnls(root[:, None] * matrix, root * measured, maxiter=1000)
    assert (expected == 0).sum() > 5  # the bound is at work
    images = torch.from_numpy(measured).view(1, 6, 6, 8)
    volume = sirt(Xrays.of(images, projector.geometry), projector, iterations=250)
    np.testing.assert_allclose(volume.flatten().numpy(), expected, atol=1e-6)


def test_a_step_is_its_formula():
    projector, matrix = dense()
    rng = np.random.default_rng(1)
    volume = rng.uniform(0, 0.03, 48)
    measured = rng.uniform(0, 2, len(matrix))
    rows = matrix.sum(1)
    columns = (matrix * (matrix.sum(1) > 0.02)[:, None]).sum(0)
    weights = np.divide(1, rows, out=np.zeros_like(rows), where=rows > 0.02)
    misfit = measured - matrix @ volume
    expected = volume + 0.7 / columns * (matrix.T @ (weights * misfit))
    images = torch.from_numpy(measured).view(1, 6, 6, 8)
    step = SirtStep(Xrays.of(images, projector.geometry), projector)
    stepped = step(torch.from_numpy(volume).view(1, 3, 4, 4), 0.7)
    np.testing.assert_allclose(stepped.flatten().numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("method", [sirt, tv])
def test_the_order_of_the_views_does_not_matter(method):
    xrays, _ = exam(5)
    turned = xrays.select([3, 0, 4, 2, 1])
    one = method(xrays, Projector(xrays.geometry, GRID), iterations=5)
    other = method(turned, Projector(turned.geometry, GRID), iterations=5)
    assert torch.allclose(one, other, atol=1e-7)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(scale=st.floats(0.1, 10))
def test_scaled_xrays_give_the_scaled_volume(scale):
    xrays, projector = exam(2)
    scaled = Xrays.of(xrays.images * scale, xrays.geometry)
    one = sirt(xrays, projector, iterations=4)
    other = sirt(scaled, projector, iterations=4)
    assert torch.allclose(one * scale, other, rtol=1e-3, atol=1e-6)
    one = tv(xrays, projector, weight=1e-4, iterations=4)
    other = tv(scaled, projector, weight=1e-4 * scale, iterations=4)
    assert torch.allclose(one * scale, other, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", [sirt, tv])
def test_an_absent_view_has_no_say(method):
    xrays, projector = exam(4)
    images = xrays.images.clone()
    images[:, 1] = 99
    absent = Xrays(images, xrays.geometry, torch.tensor([[True, False, True, True]]))
    left = xrays.select([0, 2, 3])
    volume = method(absent, projector, iterations=6)
    expected = method(left, Projector(left.geometry, GRID), iterations=6)
    assert torch.allclose(volume, expected, atol=1e-6)


@pytest.mark.parametrize("method", [sirt, tv])
@pytest.mark.parametrize("batched", [False, True])
def test_a_batch_equals_each_exam_alone(method, batched):
    volumes = torch.cat((blocks(), blocks().flip(3), blocks()))
    geometry = orbit(3)
    if batched:
        geometry = Geometry.stack([geometry, orbit(3, pixel_mm=13.0), geometry])
    projector = Projector(geometry, GRID)
    present = torch.tensor(
        [[True, True, True], [True, False, True], [False, False, False]]
    )
    together = Xrays(projector.project(volumes), geometry, present)
    answers = method(together, projector, iterations=5)
    assert len(SirtStep(together, projector).columns) == 3
    for i in range(3):
        alone = together[i : i + 1]
        expected = method(alone, Projector(alone.geometry, GRID), iterations=5)
        assert torch.allclose(answers[i : i + 1], expected, atol=1e-6)
    assert answers[2].abs().max() == 0


def test_exams_that_agree_share_their_weights():
    _, projector = exam(2)
    together = Xrays.of(
        projector.project(blocks().repeat(4, 1, 1, 1)), projector.geometry
    )
    assert len(SirtStep(together, projector).columns) == 1


def test_without_views_the_start_is_the_answer():
    xrays, projector = exam(2)
    start = blocks() + 0.001
    for nothing in (
        xrays.select([]),
        xrays.without(torch.ones(1, 2, dtype=torch.bool)),
    ):
        projector = Projector(nothing.geometry, GRID)
        assert torch.equal(sirt(nothing, projector, iterations=3, start=start), start)
        assert torch.equal(SirtStep(nothing, projector)(start), start)
        assert sirt(nothing, projector, iterations=3).abs().max() == 0
        assert tv(nothing, projector, iterations=3).abs().max() == 0


def test_the_start_is_kept_where_the_xrays_agree():
    xrays, projector = exam(2)
    assert torch.allclose(
        sirt(xrays, projector, iterations=5, start=blocks()), blocks(), atol=1e-6
    )
    assert relative(sirt(xrays, projector, iterations=5), blocks()) > 0.1


def test_never_negative_and_without_gradient():
    xrays, projector = exam(2)
    images = (xrays.images - 0.5).requires_grad_()
    for method in (sirt, tv):
        volume = method(Xrays.of(images, xrays.geometry), projector, iterations=4)
        assert volume.min() == 0
        assert not volume.requires_grad


# -- the step alone --------------------------------------------------------------------
def test_steps_one_by_one_are_sirt():
    xrays, projector = exam(3)
    start = torch.full_like(blocks(), 0.03)
    expected = sirt(xrays, projector, iterations=2, start=start, momentum=False)
    step = SirtStep(xrays, projector)
    volume = step(step(start))
    # which clamps after each step
    assert torch.allclose(volume.clamp(min=0), expected, atol=2e-4)
    assert residual(volume, xrays, projector) < 0.5 * residual(start, xrays, projector)


def test_a_step_passes_gradients_to_volume_and_strength():
    projector, _ = dense(views=2)
    generator = torch.Generator().manual_seed(0)
    volume = torch.rand(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    images = torch.rand(2, 2, 6, 8, generator=generator, dtype=torch.float64)
    present = torch.tensor([[True, True], [False, True]])
    xrays = Xrays(images, projector.geometry, present)
    strength = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    step = SirtStep(xrays, projector)
    assert torch.autograd.gradcheck(
        lambda v, s: step(step(v, s), s), (volume.requires_grad_(), strength)
    )


# -- total variation -------------------------------------------------------------------
def test_tv_keeps_piecewise_constant_bodies_better_than_sirt():
    xrays, projector = exam(6)
    generator = torch.Generator().manual_seed(0)
    noise = 0.03 * torch.randn(xrays.images.shape, generator=generator)
    noisy = Xrays.of(xrays.images + noise, xrays.geometry)
    volumes = [sirt(noisy, projector, iterations=n) for n in (5, 10, 20, 40)]
    best = min(relative(volume, blocks()) for volume in volumes)
    assert relative(tv(noisy, projector, weight=5e-5), blocks()) < 0.6 * best


def test_tv_finds_the_minimum_of_its_objective():
    projector, matrix = dense()
    truth = torch.zeros(1, 3, 4, 4, dtype=torch.float64)
    truth[:, 1:, 1:3, 1:3] = 0.03
    xrays = Xrays.of(projector.project(truth) + 0.02, projector.geometry)
    step = SirtStep(xrays, projector)
    strength = 3e-4 / float(step.columns.median())
    rows = step.rows.flatten().numpy()
    measured = xrays.images.flatten().numpy()

    def objective(flat, corner=0.0):
        steps = _gradient(torch.from_numpy(flat).view(1, 3, 4, 4)).square().sum(0)
        variation = float((steps + corner**2).sqrt().sum())
        misfit = matrix @ flat - measured
        return 0.5 * (rows * misfit**2).sum() + strength * variation

    volume = tv(xrays, projector, weight=3e-4, iterations=150, smoothing=20)
    minimum = volume.flatten().numpy()
    rounded = minimize(
        objective,
        minimum + 1e-3,
        args=(1e-5,),
        method="L-BFGS-B",
        bounds=[(0, None)] * 48,
    )
    assert objective(minimum) < 1.001 * objective(rounded.x)
    unsmoothed = sirt(xrays, projector, iterations=150).flatten().numpy()
    assert objective(minimum) < 0.9 * objective(unsmoothed)


def test_tv_works_beyond_the_edge_of_a_detector_too():
    geometry = orbit(8, detector=(8, 24))  # some voxels are grazed by single rays
    projector = Projector(geometry, GRID)
    assert (
        relative(
            tv(Xrays.of(projector.project(blocks()), geometry), projector), blocks()
        )
        < 0.105
    )


def test_a_heavier_weight_gives_less_variation():
    xrays, projector = exam(4)
    variation = [
        float(_gradient(tv(xrays, projector, weight=w)).norm(dim=0).sum())
        for w in (1e-5, 1e-4, 1e-3)
    ]
    assert variation[0] > 1.05 * variation[1] > 1.05**2 * variation[2]


def test_the_gradients_adjoint_is_exact():
    generator = torch.Generator().manual_seed(0)
    volume = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    dual = torch.randn(3, 2, 3, 4, 5, generator=generator, dtype=torch.float64)
    assert torch.allclose(
        (_gradient(volume) * dual).sum(), (volume * _gradient_adjoint(dual)).sum()
    )
