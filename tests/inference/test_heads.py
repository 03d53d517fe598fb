"""Sums of features in place of sums of logits: the same logits but for rounding, of any
network, and memory that does not grow with the classes.
"""

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from trivox.inference.engines.split import last_layer, without_last
from trivox.inference.engines.torch import TorchEngine, torch_engines
from trivox.inference.logits import heads
from trivox.inference.logits.heads import features_of
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


@dataclass(frozen=True, eq=False)
class Whole(TorchEngine):
    """An engine that does not come apart."""

    def split(self):
        return None


def both_ways(networks, runtime, image, mirror=()):
    """Logits with sums of logits, and with sums of features."""
    for kind in (Whole, TorchEngine):
        engines = [kind(network, runtime) for network in networks]
        windows = SlidingWindows(engines, PLAN.patch_size, OUTPUTS, mirror_axes=mirror)
        channels = OUTPUTS if kind is Whole else 4 * len(networks)
        assert windows.summed_channels == channels
        yield logits_of(windows, image)


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
def test_logits_are_the_same_but_for_rounding(networks, mirror, size):
    members = [network_of(seed=n) for n in range(networks)]
    plain, narrow = both_ways(members, CPU, torch.randn(1, *size), mirror)
    torch.testing.assert_close(narrow, plain, rtol=1e-4, atol=1e-4)


def test_they_are_nearer_to_full_precision_than_sums_of_half_logits():
    network = network_of()
    image = torch.randn(1, 20, 30, 41)
    wanted, _ = both_ways([network], CPU, image)
    plain, narrow = both_ways([network], HALF, image)
    assert (narrow - wanted).abs().mean() < (plain - wanted).abs().mean()


def test_many_rows_are_made_in_portions(monkeypatch):
    image = torch.randn(1, 37, 20, 16)
    at_once, _ = both_ways([network_of()], CPU, image)
    monkeypatch.setattr(heads, "VALUES_AT_ONCE", 3 * OUTPUTS * 20 * 16)
    _, in_portions = both_ways([network_of()], CPU, image)
    torch.testing.assert_close(in_portions, at_once, rtol=1e-4, atol=1e-4)


def test_nnunets_half_sums_stay():
    engines = torch_engines([network_of()], CPU)
    windows = SlidingWindows(engines, PLAN.patch_size, OUTPUTS, half=True)
    assert windows.summed_channels == OUTPUTS


def test_other_engines_and_networks_have_no_such_layer():
    whole = Whole(network_of(), CPU)
    assert features_of([whole], OUTPUTS) is None
    assert features_of([TorchEngine(whole.network, CPU), whole], OUTPUTS) is None
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
