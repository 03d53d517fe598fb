"""The network of X-rays: views, what is known without learning, sizes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from networks.xray2ct.toys import GRID, WATER, WINDOW, exams, furthest, network, orbit
from trivox.errors import GeometryError, RecipeError
from trivox.networks.registry import build_volume_network
from trivox.projection.attenuation import HounsfieldWindow
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.iterative import sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays, joined

ANGLES = (0.0, 30.0, 75.0, 120.0)


@pytest.fixture(scope="module")
def awake():
    return network(consistency_steps=2, prior_iterations=3)


def reconstruct(made, xrays, **settings):
    with torch.no_grad():
        return made(xrays, **settings)


# -- what makes a view a view ----------------------------------------------------------
@settings(max_examples=6, deadline=None, derandomize=True)
@given(order=st.permutations(range(4)))
def test_permuting_views_with_their_geometry_changes_nothing(awake, order):
    xrays = exams(orbit(*ANGLES))
    assert (
        furthest(reconstruct(awake, xrays.select(order)), reconstruct(awake, xrays))
        < 1e-5
    )


def test_swapping_images_alone_changes_the_volume(awake):
    xrays = exams(orbit(0, 90))
    swapped = Xrays.of(xrays.images[:, [1, 0]], xrays.geometry)
    assert furthest(reconstruct(awake, swapped), reconstruct(awake, xrays)) > 0.01


@pytest.mark.parametrize("absent", [[0], [1, 3], [0, 1, 2]])
def test_absent_views_are_as_if_they_had_not_been_taken(awake, absent):
    xrays = exams(orbit(*ANGLES))
    dropped = torch.tensor([[view in absent for view in range(4)]])
    left = [view for view in range(4) if view not in absent]
    assert (
        furthest(
            reconstruct(awake, xrays.without(dropped)),
            reconstruct(awake, xrays.select(left)),
        )
        < 1e-5
    )


def test_exams_with_all_views_absent_and_exams_without_views_are_alike(awake):
    none = reconstruct(awake, exams(orbit()))
    absent = exams(orbit(0, 90)).without(torch.ones(1, 2, dtype=torch.bool))
    assert none.isfinite().all()
    assert furthest(none, reconstruct(awake, absent)) < 1e-5


@pytest.mark.parametrize("views", [1, 2, 3, 5, 8, 11])
def test_any_number_of_views_will_do(awake, views):
    volume = reconstruct(
        awake, exams(orbit(*(180 * view / views for view in range(views))))
    )
    assert volume.shape == (1, 1, *GRID.shape)
    assert volume.isfinite().all()


def test_a_batch_equals_each_exam_alone(awake):
    xrays = exams(orbit(0, 60, 90), batch=3)
    xrays = xrays.without(
        torch.tensor([[False, False, False], [False, True, False], [True, True, True]])
    )
    together = reconstruct(awake, xrays)
    for i in range(3):
        assert (
            furthest(together[i : i + 1], reconstruct(awake, xrays[i : i + 1])) < 1e-5
        )


def test_exams_with_views_of_their_own_equal_each_alone(awake):
    first = orbit(0, 80)
    second = orbit(20, 130, sod=800.0)
    one = exams(first, seed=1)
    other = exams(second, seed=2)
    both = Xrays.of(
        torch.cat((one.images, other.images)), Geometry.stack([first, second])
    )
    together = reconstruct(awake, both)
    assert furthest(together[:1], reconstruct(awake, one)) < 1e-4
    assert furthest(together[1:], reconstruct(awake, other)) < 1e-4


# -- what is known without learning ----------------------------------------------------
def test_without_views_an_untrained_network_believes_the_mean():
    made = network(awake=False)
    assert torch.equal(
        reconstruct(made, exams(orbit(), batch=2))[1, 0], made.mean_volume
    )
    absent = exams(orbit(0, 90)).without(torch.ones(1, 2, dtype=torch.bool))
    assert furthest(reconstruct(made, absent)[0, 0], made.mean_volume) < 1e-5


def test_an_untrained_network_trusts_sirt_of_its_own_images_by_the_number_of_views():
    made = network(awake=False, consistency_steps=0, prior_iterations=4)
    units = HounsfieldWindow(WINDOW, WATER)
    xrays = exams(orbit(0, 60, 90), batch=2).without(
        torch.tensor([[False, False, True], [True, True, True]])
    )
    near = joined(xrays, GRID)
    start = units.attenuation(made.mean_volume).clamp(min=0).expand(2, *GRID.shape)
    prior = units.normalised(
        sirt(near, Projector(near.geometry, GRID), iterations=4, start=start)
    )
    expected = made.mean_volume + made.trust[1] * (
        prior[0] - units.normalised(start[0])
    )
    volume = reconstruct(made, xrays)
    torch.testing.assert_close(volume[0, 0], expected.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(volume[1, 0], made.mean_volume)  # no view, no trust
    assert furthest(expected, made.mean_volume) > 0.05


def test_learnt_parts_come_on_top_of_what_is_known():
    """Every learnt weight but trust and strengths moves the output, and they do too."""
    made = network(prior_iterations=3)
    made.train()
    outputs = made(exams(orbit(0, 40, 90), batch=2))
    sum(output.square().sum() for output in outputs).backward()
    silent = [
        name
        for name, weights in made.named_parameters()
        if weights.grad is None or not weights.grad.any()
    ]
    assert silent == []
    for level, entry in made.unet.entry.items():
        assert entry.weight.grad.abs().amax(dim=0).min() > 0, (
            f"a channel that level {level} is given is empty"
        )


def test_each_scale_of_the_pyramid_is_looked_into():
    made = network(prior="none", consistency_steps=0)
    caught = []

    def catch(module, inputs, maps):
        for scale in maps:
            scale.retain_grad()
            caught.append(scale)

    made.views.register_forward_hook(catch)
    made(exams(orbit(0, 90))).square().sum().backward()
    assert len(caught) == 4
    for scale, maps in enumerate(caught):
        assert maps.grad.abs().max() > 0, f"scale {scale} is not sampled"


def test_steps_towards_the_xrays_end_the_network_and_can_be_left_out():
    made = network(prior_iterations=3, consistency_steps=3)
    xrays = exams(orbit(0, 50, 90))
    units = HounsfieldWindow(WINDOW, WATER)
    projector = Projector(xrays.geometry, GRID)

    def misfit(*, consistent):
        normalised = reconstruct(made, xrays, consistent=consistent)
        volume = units.attenuation(normalised[:, 0])
        return float((projector.project(volume) - xrays.images).square().mean())

    assert misfit(consistent=True) < 0.5 * misfit(consistent=False)


def test_coarser_outputs_of_an_untrained_network_are_averages_of_what_is_known():
    made = network(awake=False, prior_iterations=3, consistency_steps=0)
    made.train()
    finest, *coarser = made(exams(orbit(0, 60, 90)))
    for scale, output in enumerate(coarser, start=1):
        torch.testing.assert_close(
            output, torch.nn.functional.avg_pool3d(finest, 2**scale)
        )
    assert furthest(finest[0, 0], made.mean_volume) > 0.05


# -- shapes ----------------------------------------------------------------------------
def test_deep_supervision_gives_the_finest_scales_in_training_alone():
    made = network(grid=Grid((32, 16, 16), (10.0, 20.0, 20.0)), prior_iterations=1)
    xrays = exams(orbit(0, 90), batch=2)
    made.train()
    assert [tuple(x.shape[1:]) for x in made(xrays)] == [
        (1, 32, 16, 16),
        (1, 16, 8, 8),
        (1, 8, 4, 4),
        (1, 4, 2, 2),
    ]
    made.deep_supervision = False
    assert made(xrays).shape == (2, 1, 32, 16, 16)
    made.eval()
    made.deep_supervision = True
    assert made(xrays).shape == (2, 1, 32, 16, 16)


def test_half_precision_changes_little(awake):
    xrays = exams(orbit(0, 90))
    with torch.autocast("cpu", torch.bfloat16):
        half = reconstruct(awake, xrays)
    assert half.dtype == torch.float32
    assert furthest(half, reconstruct(awake, xrays)) < 0.05


def test_recomputing_activations_gives_the_same_gradients():
    xrays = exams(orbit(0, 90))
    gradients = []
    for recompute in (False, True):
        made = network(prior_iterations=1)
        made.gradient_checkpointing = recompute
        made.train()
        sum(x.square().sum() for x in made(xrays)).backward()
        gradients.append(
            torch.cat([weights.grad.flatten() for weights in made.parameters()])
        )
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


# -- coarse to fine --------------------------------------------------------------------
def test_at_fewer_voxels_the_same_weights_give_a_coarser_volume():
    made = network(prior_iterations=2)
    made.train()
    made.run_at(8)
    outputs = made(exams(orbit(0, 90)))
    assert [tuple(x.shape[2:]) for x in outputs] == [(8, 8, 8), (4, 4, 4), (2, 2, 2)]
    assert made.running_grid == Grid((8, 8, 8), (40.0, 40.0, 40.0))
    sum(x.square().sum() for x in outputs).backward()
    used = {
        name for name, weights in made.named_parameters() if weights.grad is not None
    }
    assert not any(
        name.startswith(("unet.encoder.4", "unet.decoder.3", "lifting.4", "heads.4"))
        for name in used
    )
    assert any(name.startswith("unet.encoder.3") for name in used)


def test_a_new_level_fades_in_from_the_coarser_volume():
    made = network(prior="none", consistency_steps=0)
    xrays = exams(orbit(0, 90))
    mean = made.mean_volume
    made.run_at(8)
    coarse = (
        reconstruct(made, xrays)[0, 0]
        - torch.nn.functional.avg_pool3d(mean[None], 2)[0]
    )
    upsampled = torch.nn.functional.interpolate(
        coarse[None, None], scale_factor=2, mode="trilinear"
    )[0, 0]
    residuals = []
    for fade in (0.0, 0.5, 1.0):
        made.run_at(16, fade)
        residuals.append(reconstruct(made, xrays)[0, 0] - mean)
    assert furthest(residuals[0], upsampled) < 1e-5
    assert furthest(residuals[1], upsampled) > 1e-3
    made.run_at(None)
    assert furthest(reconstruct(made, xrays)[0, 0] - mean, residuals[2]) == 0


def test_impossible_sizes_are_refused():
    with pytest.raises(
        RecipeError, match="does not run at 12 voxels; choose one of 2, 4, 8, 16"
    ):
        network().run_at(12)


def test_levels_keep_their_names_when_the_grid_becomes_finer():
    small = network().state_dict()
    large = network(grid=Grid((32, 32, 32), (10.0, 10.0, 10.0))).state_dict()
    shared = {
        name
        for name in small
        if name in large and small[name].shape == large[name].shape
    }
    lost = {name for name in small if name not in shared}
    assert all(
        name.startswith(("lifting.", "unet.entry.", "heads.1.", "mean_volume"))
        for name in lost
    ), lost
    assert {
        name
        for name in small
        if name.startswith(("views.", "unet.encoder.", "unet.decoder."))
    } <= shared


# -- refusals --------------------------------------------------------------------------
def test_a_mean_volume_of_another_size_is_refused():
    with pytest.raises(
        GeometryError, match=r"\(8, 8, 8\) voxels for a grid of \(16, 16, 16\)"
    ):
        network().set_mean(torch.zeros(8, 8, 8))


def test_unknown_names_and_options_are_refused_with_those_that_exist():
    known = {"grid": GRID, "window": WINDOW, "water_per_mm": WATER}
    with pytest.raises(
        RecipeError, match=r"xray2ct-huge.*xray2ct-tiny, xray2ct-small, xray2ct-base"
    ):
        build_volume_network("xray2ct-huge", **known)
    with pytest.raises(RecipeError, match=r"no option 'wings'.*levels"):
        build_volume_network("xray2ct-tiny", **known, options={"wings": 2})
