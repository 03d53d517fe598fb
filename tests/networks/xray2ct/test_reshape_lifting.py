"""The comparison that the lifting has to win; see `reshape_lifting`."""

import pytest
import torch
import torch.nn.functional as F

from networks.xray2ct.reshape_lifting import ReshapeLiftingNet
from networks.xray2ct.toys import GRID, WINDOW, exams, furthest, network, orbit
from trivox.networks.layers import parameters_of
from trivox.networks.xray2ct import RECONSTRUCTION_SIZES
from trivox.projection import Grid, Projector, Xrays, attenuation_of

NEAR = 0.03
"""How much of the parameters the two may differ by."""


def reshaping(grid=GRID, seed=0):
    torch.manual_seed(seed)
    return ReshapeLiftingNet(grid=grid, size=RECONSTRUCTION_SIZES["tiny"]).eval()


@torch.no_grad()
def test_reshaping_is_blind_to_which_view_is_which_and_looking_is_not():
    xrays = exams(orbit(0, 90))
    swapped = Xrays.of(xrays.images[:, [1, 0]], xrays.geometry)
    turned = Xrays.of(xrays.images, orbit(20, 110))
    blind, seeing = reshaping(), network(prior="none", consistency_steps=0)
    torch.nn.init.normal_(blind.head.weight, std=0.05)
    assert furthest(blind(xrays), blind(swapped)) < 1e-5  # the order of sums between the views
    assert furthest(blind(xrays), blind(turned)) == 0
    assert furthest(blind(xrays), blind(exams(orbit(0, 90), seed=5))) > 1e-3  # it does see the images
    assert furthest(seeing(xrays), seeing(swapped)) > 1e-3
    assert furthest(seeing(xrays), seeing(turned)) > 1e-3


def test_both_have_nearly_the_same_parameters():
    assert abs(parameters_of(reshaping()) / parameters_of(network()) - 1) < NEAR


# -- trained alike -------------------------------------------------------------------------------------------------------
COARSE, FINE = Grid((32, 32, 32), (10.0, 10.0, 10.0)), Grid((64, 64, 64), (5.0, 5.0, 5.0))
TRAINING, HELD_OUT, STEPS = 160, 24, 200


class Chests:
    """Drawn chests on the grid of the networks in normalised HU, and X-rays of them rendered from twice the voxels."""

    def __init__(self):
        from trivox.datasets.thorax_phantoms import ThoraxSettings, thorax_phantom

        drawn = [thorax_phantom(ThoraxSettings(size=64), index).hounsfield for index in range(TRAINING + HELD_OUT)]
        self.hounsfield = torch.stack([torch.from_numpy(volume) for volume in drawn])
        low, high = WINDOW
        self.volumes = (F.avg_pool3d(self.hounsfield[:, None], 2) - low) / (high - low)

    def xrays(self, cases, geometry):
        return Xrays.of(Projector(geometry, FINE).project(attenuation_of(self.hounsfield[cases])), geometry)

    def psnr(self, found, cases):
        misfit = (found.clamp(0, 1) - self.volumes[cases].clamp(0, 1)).square().flatten(1).mean(1)
        return float(-10 * misfit.log10().mean())


def two_views(first=0.0, second=90.0):
    return orbit(first, second, detector=(64, 64), pixel_mm=7.6)


def trained(made, chests):
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1.5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, total_steps=STEPS, pct_start=0.1)
    for _ in range(STEPS):
        cases = torch.randint(TRAINING, (4,), generator=generator)
        jitter = ((torch.rand(2, generator=generator) - 0.5) * 10).tolist()
        found = made(chests.xrays(cases, two_views(jitter[0], 90 + jitter[1])))
        error = found - chests.volumes[cases]
        optimizer.zero_grad()
        (error.abs().mean() + 2 * error.square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return made


@pytest.mark.slow
def test_reshaping_stays_3_db_behind_at_equal_parameters_and_steps():
    chests = Chests()
    mean = chests.volumes[:TRAINING, 0].mean(0)
    seeing, blind = network(grid=COARSE, awake=False), reshaping(COARSE)
    assert abs(parameters_of(blind) / parameters_of(seeing) - 1) < NEAR
    held_out = slice(TRAINING, None)
    xrays = chests.xrays(held_out, two_views())
    found = {}
    for made in (seeing, blind):
        made.mean_volume.copy_(mean)
        trained(made, chests)
        with torch.no_grad():
            found[made] = chests.psnr(made(xrays), held_out)
    print(found[seeing], found[blind], chests.psnr(mean.expand(HELD_OUT, 1, *mean.shape), held_out))
    assert found[seeing] > found[blind] + 3
