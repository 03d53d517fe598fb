import pytest
import torch

from trivox.errors import BundleError, PlanError, RecipeError
from trivox.networks.counting import count_operations
from trivox.networks.registry import PATCH_NETWORKS, build_network
from trivox.verbs.info import info


@pytest.mark.parametrize("name", PATCH_NETWORKS)
def test_parameters_are_those_of_the_network(name):
    family = PATCH_NETWORKS[name]
    if family.blueprint.uniform:
        pytest.importorskip("monai")
    topology, patch = family.shape((16, 32, 32), (1.0, 1.0, 1.0))
    network = build_network(name, topology, channels=2, outputs=3).to("meta")
    facts = count_operations(name, topology, 2, 3, patch)
    assert facts["parameters"] == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["hybrid-lite", "unet-tiny"])
def test_an_input_too_small_for_the_network_is_named(name):
    with pytest.raises(PlanError, match="too small: no axis can be halved"):
        info(name, input=(4, 1, 1, 1))


def test_operations_grow_with_the_volume():
    small, large = (info("unet-tiny", input=(1, *[size] * 3)) for size in (32, 64))
    assert large["parameters"] >= small["parameters"]
    assert large["gflop"] / small["gflop"] == pytest.approx(8, rel=0.25)


def test_nothing_is_allocated_for_a_description(monkeypatch):
    monkeypatch.setattr(
        torch.nn.init, "kaiming_normal_", lambda tensor, *args, **kwargs: tensor
    )
    facts = info("unet-small", input=(1, 512, 512, 512))  # 0.5 GB of input alone
    assert facts["saved_activation_gib"] > 10


def test_unknown_names_list_the_known_ones():
    with pytest.raises(BundleError, match="unet-tiny"):
        info("vgg", input=(1, 8, 8, 8))
    with pytest.raises(RecipeError, match="positive"):
        info("unet-tiny", input=(1, 0, 8, 8))
