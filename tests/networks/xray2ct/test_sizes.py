"""Sizes of the networks of X-rays: levels and parameters."""

import pytest
import torch

from networks.xray2ct.toys import WATER, WINDOW, network
from trivox.errors import RecipeError
from trivox.networks.layers import parameters_of
from trivox.networks.registry import XRAY_NETWORKS, build_volume_network
from trivox.networks.xray2ct.sizes import levels_of
from trivox.projection.geometry import Geometry, Grid
from trivox.projection.xrays import Xrays
from trivox.verbs.info import info

PARAMETERS = {
    "xray2ct-tiny": 2_040_874,
    "xray2ct-small": 30_136_599,
    "xray2ct-base": 72_823_960,
}


@pytest.mark.parametrize("name", list(XRAY_NETWORKS))
def test_networks_have_the_size_that_the_docs_name(name):
    size = XRAY_NETWORKS[name].native
    facts = info(name, input=(2, size, size, size))
    assert facts["parameters"] == PARAMETERS[name]
    assert facts["views"] == 2
    assert facts["grid"] == [size] * 3
    assert facts["gflop"] > 1
    assert facts["saved_activation_gib"] > 0.05


def test_eight_levels_lead_from_128_voxels_to_one():
    with torch.device("meta"):
        made = build_volume_network(
            "xray2ct-base",
            grid=Grid((128,) * 3, (2.5,) * 3),
            window=WINDOW,
            water_per_mm=WATER,
            prior="none",
            consistency_steps=0,
        )
        xrays = Xrays.of(
            torch.zeros(1, 2, 256, 256),
            Geometry.orbit([0.0, 90.0], detector=(256, 256), pixel_mm=2.0),
        )
    down = []
    up = []
    for stages, sizes in ((made.unet.encoder, down), (made.unet.decoder, up)):
        for stage in stages:
            stage.register_forward_hook(
                lambda _, __, out, sizes=sizes: sizes.append(tuple(out.shape[2:]))
            )
    made(xrays)
    assert down == [(n, n, n) for n in (128, 64, 32, 16, 8, 4, 2, 1)]
    assert up == [(n, n, n) for n in (2, 4, 8, 16, 32, 64, 128)]


@pytest.mark.parametrize(
    ("shape", "levels"),
    [
        ((32, 32, 32), 6),
        ((64, 64, 64), 7),
        ((128, 128, 128), 8),
        ((256, 256, 256), 8),
        ((16, 64, 128), 5),
    ],
)
def test_levels_lead_down_to_one_voxel_along_the_shortest_axis(shape, levels):
    assert levels_of(shape) == levels


def test_levels_can_be_fewer_but_not_more_than_fit():
    assert levels_of((64, 64, 64), 5) == 5
    with pytest.raises(
        RecipeError,
        match=r"8 levels do not fit a grid of \(64, 64, 64\): it has room for 4 to 7",
    ):
        levels_of((64, 64, 64), 8)
    assert network(options={"levels": 4}).levels == 4


@pytest.mark.parametrize("shape", [(48, 64, 64), (4, 16, 16), (100, 100, 100)])
def test_sizes_that_cannot_be_halved_are_refused(shape):
    with pytest.raises(RecipeError, match="powers of two from 8 on"):
        levels_of(shape)


def test_parameters_do_not_depend_on_what_is_computed_without_learning():
    assert (
        parameters_of(network(consistency_steps=3))
        == parameters_of(network(consistency_steps=0)) + 3
    )
    assert parameters_of(network(prior="none")) == parameters_of(network())
