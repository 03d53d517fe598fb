"""Augmentation on a GPU: what a CPU does, in few launches and without a wait."""

import json

import numpy as np
import pytest
import torch

import trivox
from conftest import TINY
from trivox.config.options import Augmentation
from trivox.errors import ResourceError
from trivox.memory import make_room
from trivox.preparation.batches import BatchSource
from trivox.preparation.classes import CaseClasses, Classed
from trivox.preparation.masking import Masked, Masking
from trivox.preparation.resident import CaseCache, Cuts, ForGpu
from trivox.preparation.sampler import PatchSampler
from trivox.preparation.store import Store
from trivox.volumes.blurring import blur_matrix
from trivox.volumes.resampling import apply_along

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


def for_gpu(store, gpu, *, cached, half=False, capacity=2**30, backed=False):
    cache = CaseCache(store, gpu, capacity, half=half, backed=backed)
    return ForGpu(half, cache if cached else None)


def names_on_gpu(cache):
    """The least recently used case first."""
    return list(cache._residents)


@pytest.mark.parametrize("cached", [False, True], ids=["sent", "cached"])
def test_nnunets_defaults_take_few_launches_and_no_wait(store, gpu, cached):
    from pretended_gpu.device import counting

    steps = 30
    reading = for_gpu(store, gpu, cached=cached, half=True)
    made = source(store, augmentation=Augmentation(), gpu=reading)
    with counting(launches=True) as counts:
        for step in range(steps):
            made.read(step).finish(gpu)
    launches = sum(counts.launches.values()) / steps
    assert not counts.waits, counts.table(steps=steps)
    assert launches <= BUDGET, counts.table(steps=steps, what="launches")


@pytest.mark.parametrize("cached", [False, True], ids=["sent", "cached"])
@pytest.mark.parametrize("kind", ["hidden", "classed", "validation"])
def test_other_batches_of_patches_wait_for_nothing_either(store, gpu, kind, cached):
    from pretended_gpu.device import counting

    reading = for_gpu(store, gpu, cached=cached)
    augmentation = None if kind == "validation" else EVERYTHING
    patches = source(store, augmentation=augmentation, gpu=reading)
    made = {
        "hidden": Masked(patches, Masking()),
        "classed": Classed(patches, CaseClasses({"a": 0, "b": 1}, {})),
        "validation": patches,
    }[kind]
    with counting() as counts:
        for step in range(3):
            made.read(step).finish(gpu)
    assert not counts.waits, counts.table(steps=3)


def test_a_product_along_an_axis_waits_for_nothing(gpu):
    from pretended_gpu.device import counting

    array = torch.rand(1, 70, 20, 30)
    matrix = blur_matrix(70, 1.5)
    there = array.to(gpu)
    with counting() as counts:
        result = apply_along(there, matrix, 0)
    assert not counts.waits, counts.table()
    torch.testing.assert_close(result.cpu(), apply_along(array, matrix, 0))


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


@pytest.mark.parametrize("augmentation", [None, EVERYTHING], ids=["plain", "all"])
@pytest.mark.parametrize("half", [False, True])
def test_cached_cases_give_the_batches_of_sent_boxes_bit_for_bit(
    store, gpu, augmentation, half
):
    sent, cached = (
        source(
            store,
            augmentation=augmentation,
            batch=5,
            gpu=for_gpu(store, gpu, cached=cached, half=half),
        )
        for cached in (False, True)
    )
    for step in range(6):
        expected = sent.read(step).finish(gpu)
        for result, wanted in zip(cached.read(step).finish(gpu), expected, strict=True):
            assert result.dtype == wanted.dtype
            assert torch.equal(result.cpu(), wanted.cpu())


@pytest.mark.parametrize("half", [False, True])
def test_boxes_are_those_of_the_store_also_beyond_the_border(store, gpu, half):
    cache = for_gpu(store, gpu, cached=True, half=half).cache
    rng = np.random.default_rng(0)
    for _ in range(12):
        size = tuple(rng.integers(1, 24, 3).tolist())
        starts = rng.integers(-25, 50, (4, 3)).tolist()
        corners = [(name, tuple(s)) for name, s in zip("abab", starts, strict=True)]
        images, labels = cache.boxes(Cuts(corners, 2, size))
        for number, (name, start) in enumerate(corners):
            image, label = store.read_box(name, start, size)
            tolerance = 2**-11 if half else 0
            expected = torch.from_numpy(image)
            torch.testing.assert_close(
                images[number].cpu(), expected, atol=0, rtol=tolerance
            )
            assert torch.equal(labels[number].cpu(), torch.from_numpy(label))


def test_a_cache_that_memory_runs_out_for_becomes_smaller(store, gpu):
    from pretended_gpu.device import memory_of

    cache = for_gpu(store, gpu, cached=True).cache
    cuts = {name: Cuts([(name, (1, 2, 3))], 2, (8, 8, 8)) for name in "ab"}
    with memory_of(0.8):
        for name in "abab":
            image, _ = cache.boxes(cuts[name])
            expected, _ = store.read_box(name, (1, 2, 3), (8, 8, 8))
            assert torch.equal(image[0].cpu(), torch.from_numpy(expected))
    assert names_on_gpu(cache) == ["b"]


def test_a_cache_gives_way_until_nothing_is_left(store, gpu):
    """A training step asks it to before the micro-batch is lowered."""
    cache = for_gpu(store, gpu, cached=True).cache
    cuts = {name: Cuts([(name, (1, 2, 3))], 2, (8, 8, 8)) for name in "ab"}
    expected = {name: cache.boxes(cut) for name, cut in cuts.items()}
    assert names_on_gpu(cache) == ["a", "b"]
    left = []
    while make_room() and len(left) < 5:
        left.append(names_on_gpu(cache))
    assert left == [["b"], []]
    assert cache.held == 0
    for name, cut in cuts.items():
        assert torch.equal(cache.boxes(cut)[0], expected[name][0])


def test_once_all_cases_are_there_no_voxel_is_sent(store, gpu):
    from pretended_gpu.device import counting

    reading = for_gpu(store, gpu, cached=True, half=True)
    made = source(store, augmentation=None, gpu=reading)
    for step in range(4):
        made.read(step).finish(gpu)
    assert sorted(names_on_gpu(reading.cache)) == ["a", "b"]
    with counting(launches=True) as counts:
        for step in range(4, 10):
            made.read(step).finish(gpu)
    assert not counts.waits
    assert not [place for what, place in counts.launches if what == "upload"]


@pytest.mark.parametrize("backed", [False, True])
def test_the_least_recently_used_case_makes_room(store, gpu, backed):
    from pretended_gpu.device import counting

    whole = for_gpu(store, gpu, cached=True).cache
    size = (8, 8, 8)

    def cut(cache, *names):
        for name in names:
            cache.boxes(Cuts([(name, (0, 0, 0))], 2, size))

    cut(whole, "a")
    one = whole.held
    cut(whole, "b", "a")
    assert names_on_gpu(whole) == ["b", "a"]
    assert whole.held > one
    small = for_gpu(
        store, gpu, cached=True, capacity=whole.held - 1, backed=backed
    ).cache
    cut(small, "a", "b")
    assert names_on_gpu(small) == ["b"]
    cut(small, "a")
    assert names_on_gpu(small) == ["a"]
    assert small.held == one
    with counting() as counts:
        image, _ = small.boxes(Cuts([("b", (2, 2, 2))], 2, size))
    assert not counts.waits
    assert torch.equal(
        image[0].cpu(), torch.from_numpy(store.read_box("b", (2, 2, 2), size)[0])
    )


def test_memory_of_a_case_that_made_room_is_given_back(store, gpu):
    whole = for_gpu(store, gpu, cached=True, capacity=1).cache
    device = torch.cuda.memory_allocated
    before = device(gpu)
    for name in ("a", "b", "a", "b"):
        whole.boxes(Cuts([(name, (0, 0, 0))], 2, (8, 8, 8)))
    assert device(gpu) - before <= whole.held + 1024


def test_a_training_is_the_same_wherever_its_patches_come_from(
    tmp_path, tiny_data, gpu
):
    losses = {}
    for cache in ("on", "off"):
        out = tmp_path / cache
        settings = {**TINY, "epochs": 1, "patch_cache": cache, "workers": 2}
        trivox.train(tiny_data, out, preset="quick_test", device="cuda:1", set=settings)
        said = (out / "log.txt").read_text()
        assert ("patch cache: " in said) == (cache == "on")
        records = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        losses[cache] = [record.get("train_loss") for record in records]
    assert losses["on"] == losses["off"]
    assert any(losses["on"])


def test_a_cache_that_does_not_fit_is_refused_or_left_out(tmp_path, tiny_data, gpu):
    from pretended_gpu.device import memory_of

    settings = {**TINY, "epochs": 1, "patch_cache": "on"}
    with (
        memory_of(4),
        pytest.raises(ResourceError, match="set patch_cache=auto or off"),
    ):
        trivox.train(tiny_data, tmp_path / "run", device="cuda:1", set=settings)
