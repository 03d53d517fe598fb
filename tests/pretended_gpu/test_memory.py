"""Running out of a GPU's memory: seen for what it is, and survived."""

import pytest
import torch
from torch import nn

from trivox.errors import ResourceError
from trivox.inference.engines.torch import TorchEngine
from trivox.inference.windows import SlidingWindows
from trivox.learning.runtime import Runtime
from trivox.memory import memory_ran_out

SAID = [
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "CUDA error: out of memory",
    "FIND was unable to find an engine to execute this computation",
    "GET was unable to find an engine to execute this computation",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
]


@pytest.mark.parametrize("message", SAID)
def test_every_way_to_say_it_is_understood(message):
    assert memory_ran_out(RuntimeError(message))


def test_other_errors_are_not_about_memory():
    assert not memory_ran_out(RuntimeError("Expected all tensors on one device"))
    assert not memory_ran_out(ValueError("shapes differ"))


class Wide(nn.Module):
    """Takes 64 maps for a window."""

    def __init__(self):
        super().__init__()
        self.wide = nn.Conv3d(1, 64, 1)
        self.head = nn.Conv3d(64, 2, 1)

    def forward(self, x):
        return self.head(self.wide(x))


def test_windows_that_do_not_fit_together_are_computed_in_parts(gpu):
    from pretended_gpu.device import memory_of

    torch.manual_seed(0)
    engine = TorchEngine(Wide().to(gpu).eval(), Runtime(gpu, "fp32"))
    windows = SlidingWindows([engine], (16, 16, 16), 2)
    image = torch.randn(1, 16, 32, 64)

    def whole():
        return torch.cat(
            [slab.logits.cpu().clone() for slab in windows.slabs(image)], 1
        )

    expected = whole()
    asked = engine.voxels_a_batch
    with memory_of(6):
        result = whole()
    torch.testing.assert_close(result, expected)
    assert 16**3 <= engine.voxels_a_batch < asked


def test_a_window_that_never_fits_is_one_line(gpu):
    from pretended_gpu.device import memory_of

    engine = TorchEngine(Wide().to(gpu).eval(), Runtime(gpu, "fp32"))
    windows = torch.randn(2, 1, 16, 16, 16, device=gpu)
    with (
        memory_of(0.5),
        pytest.raises(ResourceError, match="a single patch does not fit"),
    ):
        engine.logits(windows)
