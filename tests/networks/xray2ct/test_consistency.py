"""What is known without learning: windows, the prior, steps to the X-rays."""

import pytest
import torch

from networks.xray2ct.toys import GRID, WATER, WINDOW, blobs, exams, furthest, orbit
from trivox.networks.xray2ct.consistency import DataConsistency, iterative_prior
from trivox.projection import xrays as xrays_module
from trivox.projection.attenuation import HounsfieldWindow, attenuation_of
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.iterative import SirtStep, sirt
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays, joined


def misfit(volume, xrays, projector):
    return float((projector.project(volume) - xrays.images).detach().square().mean())


def test_units_go_there_and_back_and_are_those_of_the_projection():
    units = HounsfieldWindow(WINDOW, WATER)
    hounsfield = torch.linspace(-1000, 2000, 31)
    normalised = (hounsfield - WINDOW[0]) / (WINDOW[1] - WINDOW[0])
    torch.testing.assert_close(
        units.attenuation(normalised), attenuation_of(hounsfield, water=WATER)
    )
    torch.testing.assert_close(
        units.normalised(units.attenuation(normalised)), normalised
    )


@pytest.mark.parametrize(("spacing", "factor"), [(20.0, 4), (10.0, 2), (6.0, 1)])
def test_pixels_are_joined_up_to_the_size_of_a_voxel(spacing, factor):
    """A pixel of 7 mm is 5.8 mm wide at the isocentre, and may become a quarter wider
    than a voxel.
    """
    geometry = Geometry.orbit([0.0, 70.0], detector=(64, 64), pixel_mm=7.0)
    xrays = joined(
        Xrays.of(torch.rand(1, 2, 64, 64), geometry), Grid((16, 16, 16), (spacing,) * 3)
    )
    assert (
        xrays.geometry.detector
        == (64 // factor, 64 // factor)
        == tuple(xrays.images.shape[2:])
    )
    assert xrays.geometry.pixel_mm[0, 0] == 7.0 * factor


def test_joined_pixels_show_what_a_coarser_detector_would():
    geometry = Geometry.orbit([0.0, 70.0], detector=(64, 64), pixel_mm=7.0)
    volume = blobs(1)
    fine = Xrays.of(Projector(geometry, GRID).project(volume), geometry)
    coarse = joined(fine, GRID)
    there = Projector(coarse.geometry, GRID).project(volume)
    assert furthest(coarse.images, there) < 0.08 * float(there.max())


def test_on_small_grids_the_prior_is_sirt():
    xrays = exams(orbit(0, 90))
    start = torch.full((1, *GRID.shape), 0.01)
    projector = Projector(xrays.geometry, GRID)
    prior = iterative_prior(xrays, projector, start, iterations=4)
    torch.testing.assert_close(prior, sirt(xrays, projector, iterations=4, start=start))


def test_on_large_grids_the_prior_is_sirt_of_half_the_voxels_about_the_start(
    monkeypatch,
):
    monkeypatch.setattr(xrays_module, "LARGEST", 8)
    xrays = exams(orbit(0, 50, 90))
    start = 0.01 * torch.rand(1, *GRID.shape)
    projector = Projector(xrays.geometry, GRID)
    assert torch.equal(iterative_prior(xrays, projector, start, iterations=0), start)
    prior = iterative_prior(xrays, projector, start, iterations=10)
    assert misfit(prior, xrays, projector) < 0.2 * misfit(start, xrays, projector)


def test_data_consistency_repeats_the_step_of_sirt_with_its_strengths():
    xrays = exams(orbit(0, 90))
    volume = 0.01 * torch.rand(1, *GRID.shape)
    projector = Projector(xrays.geometry, GRID)
    steps = DataConsistency(2)
    with torch.no_grad():
        steps.strength.copy_(torch.tensor([0.5, 0.8]))
    step = SirtStep(xrays, projector)
    torch.testing.assert_close(
        steps(volume, xrays, projector), step(step(volume, 0.5), 0.8)
    )
    assert misfit(steps(volume, xrays, projector), xrays, projector) < misfit(
        volume, xrays, projector
    )


def test_strength_and_volume_receive_the_gradients_of_the_step():
    xrays = exams(orbit(0, 90))
    projector = Projector(xrays.geometry, GRID)
    volume = (0.01 * torch.rand(1, *GRID.shape)).requires_grad_()
    steps = DataConsistency(1)
    weights = torch.rand(1, *GRID.shape)
    by_strength, by_volume = torch.autograd.grad(
        (weights * steps(volume, xrays, projector)).sum(), [steps.strength, volume]
    )
    # The result is linear in the strength.
    full = SirtStep(xrays, projector)(volume) - volume
    torch.testing.assert_close(
        by_strength, (weights * full).sum()[None], rtol=1e-3, atol=1e-6
    )
    assert furthest(by_volume, weights) > 0.01  # not the gradient of the identity
