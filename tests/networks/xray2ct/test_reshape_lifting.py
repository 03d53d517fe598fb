"""The comparison that the lifting has to win; see `reshape_lifting`."""

import torch

from networks.xray2ct.reshape_lifting import ReshapeLiftingNet
from networks.xray2ct.toys import GRID, exams, furthest, network, orbit
from trivox.networks.layers import parameters_of
from trivox.networks.xray2ct import RECONSTRUCTION_SIZES
from trivox.projection import Xrays


def reshaping(grid=GRID, seed=0):
    torch.manual_seed(seed)
    made = ReshapeLiftingNet(grid=grid, size=RECONSTRUCTION_SIZES["tiny"]).eval()
    torch.nn.init.normal_(made.head.weight, std=0.05)
    return made


@torch.no_grad()
def test_reshaping_is_blind_to_which_view_is_which_and_looking_is_not():
    xrays = exams(orbit(0, 90))
    swapped = Xrays.of(xrays.images[:, [1, 0]], xrays.geometry)
    turned = Xrays.of(xrays.images, orbit(20, 110))
    blind, seeing = reshaping(), network(prior="none", consistency_steps=0)
    assert furthest(blind(xrays), blind(swapped)) < 1e-5  # the order of sums between the views
    assert furthest(blind(xrays), blind(turned)) == 0
    assert furthest(blind(xrays), blind(exams(orbit(0, 90), seed=5))) > 1e-3  # it does see the images
    assert furthest(seeing(xrays), seeing(swapped)) > 1e-3
    assert furthest(seeing(xrays), seeing(turned)) > 1e-3


def test_both_have_nearly_the_same_parameters():
    assert abs(parameters_of(reshaping()) / parameters_of(network()) - 1) < 0.03
