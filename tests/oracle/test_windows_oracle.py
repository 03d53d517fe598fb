import pytest
import torch
from torch import nn

from trivox.inference.engines.torch import torch_engines
from trivox.inference.windows import SlidingWindows
from trivox.learning.runtime import Runtime

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def sliding_window_inference():
    return pytest.importorskip("monai.inferers").sliding_window_inference


PATCH = (16, 16, 16)
OVERLAP = 0.5


def logits_of(network, image):
    engines = torch_engines([network], Runtime(torch.device("cpu"), "fp32"))
    windows = SlidingWindows(engines, PATCH, 2, overlap=OVERLAP)
    return torch.cat([slab.logits.clone() for slab in windows.slabs(image)], dim=1)


@torch.no_grad()
def monais(sliding_window_inference, network, image):
    (logits,) = sliding_window_inference(
        image[None],
        PATCH,
        4,
        network,
        overlap=OVERLAP,
        mode="gaussian",
        sigma_scale=0.125,
    )
    return logits


@pytest.mark.parametrize("size", [(32, 32, 32), (23, 40, 17), (9, 30, 12)])
def test_voxelwise_networks_give_monais_result(sliding_window_inference, size):
    """All windows agree on every voxel, so only positions, padding and normalisation
    matter.
    """
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv3d(1, 4, 1), nn.Tanh(), nn.Conv3d(4, 2, 1)).eval()
    image = torch.randn(1, *size)
    expected = monais(sliding_window_inference, network, image)
    assert torch.allclose(logits_of(network, image), expected, atol=1e-5)


def test_convolutions_give_monais_blend_inside(sliding_window_inference):
    """Where sizes are whole steps the positions are the same, and so is the Gaussian
    blend.

    MONAI floors the product of the weights, we floor each axis, so voxels near the
    volume's border, where all weights are small, blend differently and are left out.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv3d(4, 2, 3, padding=1)
    ).eval()
    image = torch.randn(1, 32, 40, 24)
    expected = monais(sliding_window_inference, network, image)
    inside = (slice(None), *[slice(4, -4)] * 3)
    difference = (logits_of(network, image) - expected)[inside].abs()
    assert difference.max() < 0.03 * expected.abs().max()
    assert difference.mean() < 1e-3 * expected.abs().max()
