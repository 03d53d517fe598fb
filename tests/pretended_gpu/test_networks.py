"""Every network learns a step and predicts on the second device, in every precision."""

import pytest
import torch
from torch import nn

from pretended_gpu.arithmetic import WithoutArithmetic
from trivox.learning.losses.fused import dice_cross_entropy
from trivox.learning.runtime import Runtime
from trivox.networks.layers import InstanceNorm
from trivox.networks.registry import PATCH_NETWORKS, build_network, patch_family

PATCH = (32, 32, 32)
TINY = (16, 16, 16)
"""For fp16, which a CPU computes slowly."""
SLOW = ("hybrid-base", "hybrid-large", "resenc-l", "resenc-xl")
PEERS = [name for name, family in PATCH_NETWORKS.items() if family.blueprint.uniform]


def small(name, patch=PATCH, width=32):
    """A topology of the network that computes fast."""
    topology, patch = patch_family(name).shape(patch, (1.0, 1.0, 1.0))
    narrow = tuple(min(features, width) for features in topology.features)
    if name.startswith(("unet", "nnunet", "resenc", "nvidia")):
        topology = topology.model_copy(update={"features": narrow})
    return topology, patch


CASES = [(name, {}) for name in PATCH_NETWORKS if name not in (*SLOW, *PEERS)]
CASES += [
    ("hybrid-lite", {"attention": kind})
    for kind in ("none", "swin", "deformable", "global")
]


@pytest.mark.parametrize(("name", "options"), CASES)
@pytest.mark.parametrize("precision", ["bf16"])
def test_a_network_learns_and_predicts(gpu, name, options, precision):
    learn(gpu, name, options, precision)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_other_precisions(gpu, precision):
    learn(gpu, "unet-tiny", {}, precision)


@pytest.mark.parametrize("name", [*SLOW, *PEERS])
@pytest.mark.parametrize("precision", ["bf16"])
def test_a_large_network_learns_and_predicts(gpu, name, precision):
    """All but what convolutions and products compute."""
    if name in PEERS:
        pytest.importorskip("monai")
    with WithoutArithmetic():
        learn(gpu, name, {}, precision)


def learn(gpu, name, options, precision):
    runtime = Runtime(gpu, precision)
    halves = precision == "fp16"
    topology, patch = small(name, TINY, 8) if halves else small(name)
    torch.manual_seed(0)
    network = build_network(name, topology, channels=2, outputs=3, options=options)
    network.to(gpu).train()
    image = torch.randn(2, 2, *patch, device=gpu)
    labels = torch.randint(0, 3, (2, *patch), device=gpu)
    rule = torch.optim.SGD(network.parameters(), lr=0.01)
    scaler = runtime.scaler()
    with runtime.autocast():
        outputs = network(image)
    loss = dice_cross_entropy(outputs[0], labels)
    scaler.scale(loss + sum(o.float().mean() for o in outputs[1:])).backward()
    scaler.unscale_(rule)
    for parameter in network.parameters():
        assert parameter.grad is None or parameter.grad.device == gpu
    scaler.step(rule)
    assert torch.isfinite(loss)
    with torch.inference_mode(), runtime.autocast():
        result = network.eval()(image)
    assert result.device == gpu
    assert torch.isfinite(result).all()


@pytest.mark.parametrize(
    ("name", "precision"),
    [("unet-tiny", "fp16"), ("hybrid-lite", "bf16"), ("resenc-m", "bf16")],
)
def test_maps_stay_in_half_precision(gpu, name, precision):
    """What is kept for backward is as small as the recipe says: no norm or activation
    makes fp32 of it.
    """
    runtime = Runtime(gpu, precision)
    topology, patch = small(name, TINY, 8)
    network = build_network(name, topology, channels=1, outputs=2).to(gpu).train()
    kinds = set()

    def note(_module, _inputs, output):
        kinds.add(output.dtype)

    for module in network.modules():
        if isinstance(module, InstanceNorm | nn.LeakyReLU | nn.Conv3d | nn.GroupNorm):
            module.register_forward_hook(note)
    with runtime.autocast():
        network(torch.randn(1, 1, *patch, device=gpu))
    assert kinds == {torch.bfloat16 if precision == "bf16" else torch.float16}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_is_the_same_on_both_devices(gpu, kind, layout):
    torch.manual_seed(0)
    norm = InstanceNorm(6)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 5, 7, 4).to(memory_format=layout)
    expected = norm(x)
    result = norm.to(gpu)(x.to(gpu, kind))
    tolerance = 1e-5 if kind == torch.float32 else 0.03
    torch.testing.assert_close(
        result.float().cpu(), expected, atol=tolerance, rtol=tolerance
    )
