"""Where prepared cases are kept for a GPU, and who reads them."""

from functools import partial

import numpy as np
import pytest
import torch

from trivox.config.recipe import Recipe
from trivox.learning import runtime
from trivox.learning.runtime import reading_threads
from trivox.preparation.parcels import halved
from trivox.tasks.residence import Rooms

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("sizes", "place"),
    [
        ([10, 20, 30], "gpu"),
        ([30, 30, 30], "gpu"),
        ([31, 30, 30], "host"),
        ([32] * 6, "host"),
        ([46, 45], None),
        ([45] * 5, None),
        # pinned as 64 each
        ([40, 40, 40], "host"),
        ([40, 40, 40, 40], None),
    ],
)
def test_cases_lie_where_they_fit(sizes, place):
    assert Rooms(gpu=90, host=200).place(sizes) == place


def test_pinned_memory_is_given_back_where_torch_knows_how(monkeypatch):
    calls = []
    give_back = partial(calls.append, "given back")
    monkeypatch.setattr(torch.accelerator, "empty_host_cache", give_back, raising=False)
    runtime.free_pinned_memory()
    assert calls == ["given back"]
    monkeypatch.delattr(torch.accelerator, "empty_host_cache")
    runtime.free_pinned_memory()


@pytest.mark.parametrize(
    ("cores", "ranks", "threads"), [(64, 4, 12), (16, 4, 4), (2, 4, 1), (6, 1, 6)]
)
def test_readers_of_a_gpu_share_the_cores(monkeypatch, cores, ranks, threads):
    monkeypatch.setattr(runtime, "usable_cores", lambda: cores)
    monkeypatch.setattr(runtime, "world_size", lambda: 2 * ranks)  # two machines
    monkeypatch.setattr(torch.cuda, "device_count", lambda: ranks)
    assert reading_threads("auto", GPU) == threads
    assert reading_threads("auto", CPU) == 2
    assert reading_threads(3, GPU) == 3
    assert reading_threads(0, CPU) == 0


def test_cases_are_prepared_two_at_a_time_unless_told_otherwise():
    assert Recipe().cases_at_a_time == 2
    assert Recipe(workers=0).cases_at_a_time == 1
    assert Recipe(workers=5).cases_at_a_time == 5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1000.0, 1e4])
def test_half_precision_keeps_eleven_binary_digits(scale):
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.normal(size=(1, 1, 8, 8, 8)).astype(np.float32))
    images *= scale
    short = halved(images)
    assert short.dtype == torch.float16
    # below 6e-5 the digits become fewer, which no network sees
    torch.testing.assert_close(short.float(), images, rtol=2**-11, atol=2**-25)


@pytest.mark.parametrize("values", [[0.0, 70000.0], [-1e6, 1.0], [1e-6, 2e-6]])
def test_what_half_precision_would_lose_stays_single(values):
    images = torch.tensor(values)
    assert halved(images) is images


def test_nothing_and_zeros_are_kept():
    assert halved(torch.zeros(0, 2)).dtype == torch.float16
    assert halved(torch.zeros(3)).dtype == torch.float16
