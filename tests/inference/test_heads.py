"""Sums of features in place of sums of logits: the same logits but for rounding, of any
network, and memory that does not grow with the classes.
"""

import subprocess
import sys

import pytest
import torch
from torch import nn

from trivox.inference import windows as module
from trivox.inference.engines.torch import torch_engines
from trivox.inference.logits.heads import features_of, last_layer, without_last
from trivox.inference.windows import SlidingWindows
from trivox.learning.runtime import Runtime
from trivox.networks.registry import PATCH_NETWORKS, build_network
from untrained_models import plan_of

CPU = Runtime(torch.device("cpu"), "fp32")
HALF = Runtime(torch.device("cpu"), "bf16")
OUTPUTS = 12
RIVALS = {"segresnet-ds", "swin-unetr-v2", "mednext-s", "mednext-b", "mednext-l"}
PLAN = plan_of()


def network_of(name="nnunet-plain", seed=0, **options):
    torch.manual_seed(seed)
    network = build_network(
        name,
        PLAN.topology,
        channels=1,
        outputs=OUTPUTS,
        deep_supervision=False,
        options=options,
    )
    return network.eval()


def logits_of(windows, image):
    return torch.cat([slab.logits.clone() for slab in windows.slabs(image)], dim=1)


def both_ways(monkeypatch, windows, image):
    """Logits with sums of logits, and with sums of features."""
    monkeypatch.setattr(module, "MUCH", 2**62)
    plain = logits_of(windows, image)
    monkeypatch.setattr(module, "MUCH", 0)
    return plain, logits_of(windows, image)


OURS = [name for name in PATCH_NETWORKS if name not in RIVALS]


@pytest.mark.parametrize("name", OURS)
@torch.inference_mode()
def test_every_network_is_its_features_and_its_last_layer(name):
    network = network_of(name)
    image = torch.randn(1, 1, *PLAN.patch_size)
    wanted = network(image)
    layer = last_layer(network)
    assert layer is not None
    torch.testing.assert_close(layer(without_last(network)(image)), wanted)
    assert torch.equal(network(image), wanted)  # it stayed as it was


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("mirror", [(), (0, 2)])
@pytest.mark.parametrize("size", [(16, 16, 16), (9, 30, 41), (37, 20, 16)])
def test_logits_are_the_same_but_for_rounding(monkeypatch, networks, mirror, size):
    engines = torch_engines([network_of(seed=n) for n in range(networks)], CPU)
    windows = SlidingWindows(engines, PLAN.patch_size, OUTPUTS, mirror_axes=mirror)
    plain, narrow = both_ways(monkeypatch, windows, torch.randn(1, *size))
    assert windows.summed_channels(size) == 4 * networks
    torch.testing.assert_close(narrow, plain, rtol=1e-4, atol=1e-4)


def test_they_are_nearer_to_full_precision_than_sums_of_half_logits(monkeypatch):
    network = network_of()
    image = torch.randn(1, 20, 30, 41)
    exact, half = (
        SlidingWindows(torch_engines([network], runtime), PLAN.patch_size, OUTPUTS)
        for runtime in (CPU, HALF)
    )
    wanted, _ = both_ways(monkeypatch, exact, image)
    plain, narrow = both_ways(monkeypatch, half, image)
    assert (narrow - wanted).abs().mean() < (plain - wanted).abs().mean()


def test_small_cases_sum_logits_as_ever(monkeypatch):
    monkeypatch.setattr(module, "features_of", None)  # would be called
    engines = torch_engines([network_of()], CPU)
    windows = SlidingWindows(engines, PLAN.patch_size, OUTPUTS)
    assert windows.summed_channels((64, 64, 64)) == OUTPUTS
    assert logits_of(windows, torch.zeros(1, 20, 20, 20)).shape[0] == OUTPUTS


def test_nnunets_half_sums_stay(monkeypatch):
    monkeypatch.setattr(module, "MUCH", 0)
    engines = torch_engines([network_of()], CPU)
    windows = SlidingWindows(engines, PLAN.patch_size, OUTPUTS, half=True)
    assert windows.summed_channels((64, 64, 64)) == OUTPUTS


def test_other_engines_and_networks_have_no_such_layer():
    class Other:
        device = torch.device("cpu")

    assert features_of([Other()], OUTPUTS) is None
    assert features_of(torch_engines([nn.Conv3d(1, 3, 1)], CPU), OUTPUTS) is None
    several = torch_engines([network_of(seed=n) for n in range(3)], CPU)
    assert features_of(several, OUTPUTS) is None  # as many features as outputs


MEMORY = """
import resource, torch
from torch import nn
torch.set_num_threads(1)
from trivox.inference.engines.torch import torch_engines
from trivox.inference.windows import SlidingWindows
from trivox.learning.runtime import Runtime
class Small(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.body = nn.Conv3d(1, 4, 1)
        self.heads = nn.ModuleList([nn.Conv3d(4, outputs, 1)])
    def forward(self, x):
        return self.heads[0](self.body(x))
torch.manual_seed(0)
for outputs in (8, 300):
    engines = torch_engines([Small(outputs).eval()], Runtime(torch.device("cpu"), "fp32"))
    windows = SlidingWindows(engines, (32, 32, 32), outputs)
    for slab in windows.slabs(torch.randn(1, 32, 160, 160)):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def test_memory_does_not_grow_with_the_classes():
    """Sums of 300 classes would take 980 MB, those of 8 take 26."""
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    few, many = map(float, done.stdout.split())
    assert many - few < 600
