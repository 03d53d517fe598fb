"""Augmentation on a GPU: what a CPU does, in few launches and without a wait."""

import numpy as np
import pytest
import torch

from trivox.config.options import Augmentation
from trivox.preparation.batches import BatchSource
from trivox.preparation.sampler import PatchSampler
from trivox.preparation.store import Store

PATCH = (16, 18, 20)
BUDGET = 40
"""Launches of a batch on average."""
CPU = torch.device("cpu")
EVERYTHING = Augmentation(
    **dict.fromkeys(
        (
            *("rotation", "scaling", "elastic", "blur", "brightness", "contrast"),
            *("low_resolution", "gamma", "gamma_inverted", "mirror", "drop_channel"),
        ),
        0.5,
    ),
    noise=0.0,
)
"""All but noise, whose numbers are those of the device's own generator."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    made = Store(tmp_path_factory.mktemp("store"))
    rng = np.random.default_rng(0)
    for name, shape in (("a", (40, 44, 36)), ("b", (30, 36, 48))):
        coarse = rng.integers(0, 5, [size // 4 + 1 for size in shape])
        label = coarse.repeat(4, 0).repeat(4, 1).repeat(4, 2) - 1
        label = label[: shape[0], : shape[1], : shape[2]].astype(np.int16)
        image = rng.normal(size=(2, *shape)).astype(np.float32)
        made.write(name, image, label, {})
    return made


def source(store, *, augmentation=None, batch=2, **changes):
    sampler = PatchSampler(store, ("a", "b"), PATCH, batch_size=batch)
    return BatchSource(
        sampler=sampler,
        seed=5,
        spacing=(2.0, 1.0, 1.0),
        positions=range(batch),
        augmentation=augmentation,
        **changes,
    )


def test_nnunets_defaults_take_few_launches_and_no_wait(store, gpu):
    from pretended_gpu.device import counting

    steps = 30
    made = source(store, augmentation=Augmentation())
    with counting(launches=True) as counts:
        for step in range(steps):
            made.read(step).finish(gpu)
    launches = sum(counts.launches.values()) / steps
    assert not counts.waits, counts.table(steps=steps)
    assert launches <= BUDGET, counts.table(steps=steps, what="launches")


@pytest.mark.parametrize("augmentation", [None, EVERYTHING], ids=["plain", "all"])
@pytest.mark.parametrize("masks", [0, 1])
def test_a_gpu_makes_the_batches_of_a_cpu(store, gpu, augmentation, masks):
    made = source(store, augmentation=augmentation, batch=5, masks=masks)
    for step in range(6):
        images, labels = made.read(step).finish(CPU)
        there, there_labels = made.read(step).finish(gpu)
        assert (there.device, there.dtype) == (gpu, images.dtype)
        assert (there_labels.device, there_labels.dtype) == (gpu, labels.dtype)
        torch.testing.assert_close(there.cpu(), images, atol=2e-3, rtol=1e-3)
        # ties, which rounding decides
        assert (there_labels.cpu() != labels).float().mean() < 0.005
