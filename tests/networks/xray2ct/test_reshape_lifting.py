"""The comparison that the lifting has to win; see `reshape_lifting`."""

import pytest
import torch
import torch.nn.functional as F

from networks.xray2ct.reshape_lifting import ReshapeLiftingNet
from networks.xray2ct.toys import GRID, WINDOW, exams, furthest, network, orbit
from trivox.datasets.phantoms.thoraxes import ThoraxSettings, thorax_phantom
from trivox.networks.layers import parameters_of
from trivox.networks.xray2ct.sizes import RECONSTRUCTION_SIZES
from trivox.projection.attenuation import attenuation_of
from trivox.projection.geometry import Grid
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays

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
    blind = reshaping()
    seeing = network(prior="none", consistency_steps=0)
    torch.nn.init.normal_(blind.head.weight, std=0.05)
    # Up to the order of sums between the views.
    assert furthest(blind(xrays), blind(swapped)) < 1e-5
    assert furthest(blind(xrays), blind(turned)) == 0
    # It does see the images.
    assert furthest(blind(xrays), blind(exams(orbit(0, 90), seed=5))) > 1e-3
    assert furthest(seeing(xrays), seeing(swapped)) > 1e-3
    assert furthest(seeing(xrays), seeing(turned)) > 1e-3


def test_both_have_nearly_the_same_parameters():
    assert abs(parameters_of(reshaping()) / parameters_of(network()) - 1) < NEAR


# -- trained alike ---------------------------------------------------------------------
TRAINING = 160
HELD_OUT = 24


class Chests:
    """Drawn chests in normalised HU on a cube of `size` voxels, and X-rays of them
    rendered from twice as many an axis.
    """

    def __init__(self, size):
        drawn = [
            thorax_phantom(ThoraxSettings(size=2 * size), i).hounsfield
            for i in range(TRAINING + HELD_OUT)
        ]
        self.hounsfield = torch.stack([torch.from_numpy(volume) for volume in drawn])
        self.size = size
        low, high = WINDOW
        self.volumes = (F.avg_pool3d(self.hounsfield[:, None], 2) - low) / (high - low)
        self.grid = Grid((size,) * 3, (320 / size,) * 3)
        self.fine = self.grid.resized((2 * size,) * 3)
        self.mean = self.volumes[:TRAINING, 0].mean(0)

    def xrays(self, cases, angles=(0.0, 90.0)):
        views = orbit(
            *angles, detector=(2 * self.size, 2 * self.size), pixel_mm=243 / self.size
        )
        attenuation = attenuation_of(self.hounsfield[cases])
        return Xrays.of(Projector(views, self.fine).project(attenuation), views)

    def psnr(self, volumes):
        """Of volumes for the cases that no training saw."""
        error = volumes.clamp(0, 1) - self.volumes[TRAINING:].clamp(0, 1)
        misfit = error.square().flatten(1).mean(1)
        return float(-10 * misfit.log10().mean())

    @torch.no_grad()
    def held_out(self, made):
        return self.psnr(made.eval()(self.xrays(slice(TRAINING, None))))


def trained(made, chests, steps):
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(made.parameters(), lr=1.5e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.5e-3, total_steps=steps, pct_start=0.1
    )
    for _ in range(steps):
        cases = torch.randint(TRAINING, (4,), generator=generator)
        jitter = ((torch.rand(2, generator=generator) - 0.5) * 10).tolist()
        xrays = chests.xrays(cases, (jitter[0], 90 + jitter[1]))
        error = made(xrays) - chests.volumes[cases]
        optimizer.zero_grad()
        (error.abs().mean() + 2 * error.square().mean()).backward()
        torch.nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "steps", "settings"),
    [(32, 200, {}), (16, 400, {"prior": "none", "consistency_steps": 0})],
    ids=["whole", "lifting-alone"],
)
def test_reshaping_stays_3_db_behind_at_equal_parameters_and_steps(
    size, steps, settings
):
    """The whole network, and without SIRT and data consistency: what is left then is
    how views are lifted.
    """
    chests = Chests(size)
    seeing = network(grid=chests.grid, awake=False, **settings)
    blind = reshaping(chests.grid)
    assert abs(parameters_of(blind) / parameters_of(seeing) - 1) < NEAR
    seeing.mean_volume.copy_(chests.mean)
    blind.mean_volume.copy_(chests.mean)
    known = chests.psnr(chests.mean.expand(HELD_OUT, 1, *chests.mean.shape))
    looking, reshaped = (
        chests.held_out(trained(made, chests, steps)) for made in (seeing, blind)
    )
    print(
        f"{size}^3, {steps} steps: mean {known:.2f} dB, "
        f"reshaping {reshaped:.2f} dB, looking {looking:.2f} dB"
    )
    assert looking > reshaped + 3
    # 200 steps teach it little more than the mean, 400 in fewer voxels a decibel.
    assert reshaped > known - 0.2
