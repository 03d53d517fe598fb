"""MONAI's networks behind our interface: outputs, deep supervision and the sizes
written down for them.
"""

import pytest
import torch

from trivox.errors import RecipeError
from trivox.networks.layers import parameters_of
from trivox.networks.registry import PATCH_NETWORKS, build_network

pytest.importorskip("monai")
pytestmark = pytest.mark.oracle

RIVALS = [name for name, family in PATCH_NETWORKS.items() if family.blueprint.uniform]
SCALES = {"segresnet-ds": 4, "swin-unetr-v2": 1}


@pytest.mark.parametrize("name", RIVALS)
def test_parameters_are_those_written_down_for_the_forecast(name):
    topology, _ = PATCH_NETWORKS[name].shape((64, 64, 64), (1.0, 1.0, 1.0))
    built = build_network(name, topology, channels=4, outputs=3)
    assert parameters_of(built) == pytest.approx(topology.measured.parameters, rel=0.01)


@pytest.mark.parametrize("name", ["segresnet-ds", "swin-unetr-v2", "mednext-s"])
def test_outputs_are_the_finest_alone_or_all_scales_in_training(name):
    topology, padded = PATCH_NETWORKS[name].shape((20, 30, 32), (1.0, 1.0, 1.0))
    network = build_network(name, topology, channels=2, outputs=3)
    image = torch.randn(1, 2, *padded)
    with torch.no_grad():
        assert network.eval()(image).shape == (1, 3, *padded)
        scales = network.train()(image)
    assert len(scales) == SCALES.get(name, 5)
    for index, out in enumerate(scales):
        assert out.shape[2] == padded[0] // 2**index
    single = build_network(
        name, topology, channels=2, outputs=3, deep_supervision=False
    )
    with torch.no_grad():
        assert isinstance(single.train()(image), torch.Tensor)


def test_a_plan_for_another_network_is_refused():
    topology, _ = PATCH_NETWORKS["nnunet-plain"].shape((8, 64, 64), (5.0, 1.0, 1.0))
    with pytest.raises(RecipeError, match="make the plan for this network"):
        build_network("mednext-s", topology, channels=1, outputs=2)
