"""The pretended device behaves as a GPU does, where it matters to the other tests."""

import pytest
import torch
from torch import nn


def test_what_is_computed_there_stays_there_and_equals_the_cpu(gpu):
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, 1, 8, 8, 8, generator=generator)
    network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.LeakyReLU())
    expected = network(image)
    result = network.to(gpu)(image.to(gpu))
    assert result.device == gpu
    torch.testing.assert_close(result.cpu(), expected)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda x: x + torch.ones(4, 4),
        lambda x: x + x.to("cuda:0"),
        lambda x: torch.cat([x, torch.ones(4, 4)]),
        lambda x: torch.randn(3, generator=torch.Generator(), device=x.device),
        lambda x: x.numpy(),
    ],
    ids=["cpu", "other gpu", "list", "generator", "numpy"],
)
def test_mixed_devices_raise(gpu, mistake):
    with pytest.raises((RuntimeError, TypeError), match=r"device|generator|numpy"):
        mistake(torch.ones(4, 4, device=gpu))


def test_autocast_has_the_rules_of_cuda(gpu):
    image = torch.ones(1, 4, 4, 4, 4, device=gpu)
    with torch.autocast("cuda", torch.bfloat16):
        assert nn.Conv3d(4, 4, 1).to(gpu)(image).dtype == torch.bfloat16
        assert nn.GroupNorm(4, 4).to(gpu)(image.bfloat16()).dtype == torch.float32


def test_what_waits_is_counted_and_what_does_not_is_not(gpu):
    from pretended_gpu.device import counting

    x = torch.ones(4, 4, device=gpu)
    mask = x > 0
    pinned = torch.ones(4, 4).pin_memory()
    with counting(launches=True) as counts:
        x.mul_(2).add_(pinned.to(gpu, non_blocking=True))
        x[mask] = 1.0
    assert not counts.waits
    assert counts.launches
    for waiting in (
        lambda: x.sum().item(),
        lambda: x[mask],
        lambda: x[[0, 1]],
        lambda: x.nonzero(),
        lambda: torch.ones(4).to(gpu),
        lambda: x.cpu(),
    ):
        with counting() as counts:
            waiting()
        assert counts.waits


def test_memory_is_counted_and_can_run_out(gpu):
    from pretended_gpu.device import memory_of, peak_of

    megabyte = 2**20
    peak = peak_of(lambda: torch.ones(4 * megabyte, device=gpu).add_(1), gpu)
    assert peak == 16 * megabyte
    with memory_of(20), pytest.raises(torch.OutOfMemoryError):
        torch.ones(4 * megabyte, device=gpu) + 1
    assert (torch.ones(4 * megabyte, device=gpu) + 1).device == gpu
