"""Gradient checkpointing: the same gradients from fewer saved bytes, in every network
that offers it.
"""

import pytest
import torch
from torch import nn

from trivox.networks.registry import PATCH_NETWORKS, build_network

PATCH = (32, 32, 32)


def build(name, *, recompute):
    torch.manual_seed(0)
    topology, _ = PATCH_NETWORKS[name].shape(PATCH, (1.0, 1.0, 1.0))
    network = build_network(name, topology, channels=1, outputs=3).train()
    network.gradient_checkpointing = recompute
    return network


def step(network, images):
    """Outputs, gradients, and the bytes of different memory that autograd kept."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)  # dropped paths
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = network(images)
    saved = sum(size for place, size in storages.items() if place not in weights)
    sum(logits.square().mean() for logits in outputs).backward()
    return outputs, [p.grad for p in network.parameters()], saved


@pytest.mark.parametrize(("name", "most"), [("unet-small", 0.5), ("resenc-m", 0.35)])
def test_recomputation_gives_the_same_gradients_from_fewer_saved_bytes(name, most):
    images = torch.randn(1, 1, *PATCH)
    outputs, gradients, saved = step(build(name, recompute=False), images)
    again, recomputed, fewer = step(build(name, recompute=True), images)
    for one, other in zip([*outputs, *gradients], [*again, *recomputed], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert fewer < most * saved


def test_nothing_is_recomputed_in_evaluation():
    network = build("unet-small", recompute=True).eval()
    calls = []
    network.encoder[0].register_forward_pre_hook(lambda *args: calls.append(1))
    images = torch.randn(1, 1, *PATCH, requires_grad=True)
    network(images).sum().backward()
    assert len(calls) == 1
    network.train()
    sum(logits.sum() for logits in network(images)).backward()
    assert len(calls) == 3


def test_the_stages_of_the_encoder_are_all_that_comes_before_the_decoder():
    network = build("resenc-m", recompute=False)
    stages = nn.ModuleList(network.encoder_stages())
    expected = {
        p
        for name, p in network.named_parameters()
        if not name.startswith(("up.", "decoder.", "heads."))
    }
    assert set(stages.parameters()) == expected
    assert len(network.encoder_stages()) == network.topology.stages
    assert network.stem[0].weight in set(network.encoder_stages()[0].parameters())
    assert "stem.0.weight" in network.state_dict()  # asking leaves no second name
    assert len(network.state_dict()) == len(list(network.parameters()))
