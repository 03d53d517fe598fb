"""Batches: the stream is what reading one by one gives, for any number of threads and
ranks.
"""

import pytest
import torch

from trivox.config.options import Augmentation
from trivox.preparation.batches import BatchSource
from trivox.preparation.sampler import PatchSampler
from trivox.preparation.stream import stream

CPU = torch.device("cpu")
STRONG = Augmentation(
    rotation=0.5, scaling=0.5, elastic=0.3, noise=0.5, gamma=0.5, blur=0.5
)
PATCH = (8, 10, 12)


def source(store, *, augmentation=STRONG, positions=range(4), **changes):
    sampler = PatchSampler(store, ("a", "b"), PATCH, batch_size=4)
    named = {
        "seed": 5,
        "spacing": (2.0, 1.0, 1.0),
        "positions": positions,
        "augmentation": augmentation,
        **changes,
    }
    return BatchSource(sampler, **named)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_equals_reading_one_by_one_in_order(store, workers):
    made = source(store)
    steps = [4, 5, 6, 7, 2]
    batches = list(stream(made, steps, device=CPU, workers=workers))
    assert len(batches) == len(steps)
    for step, batch in zip(steps, batches, strict=True):
        assert equal(batch, made.read(step).finish(CPU))


@pytest.mark.parametrize("augmentation", [None, STRONG])
def test_a_batch_has_the_shapes_and_types_that_the_network_takes(store, augmentation):
    images, labels = source(store, augmentation=augmentation).read(0).finish(CPU)
    assert (images.shape, images.dtype) == ((4, 2, *PATCH), torch.float32)
    assert (labels.shape, labels.dtype) == ((4, *PATCH), torch.int16)
    assert images.isfinite().all()


def test_without_augmentation_a_batch_is_what_the_store_holds(store):
    made = source(store, augmentation=None)
    images, labels = made.read(3).finish(CPU)
    for position in range(4):
        draw = made.draw(3, position)
        assert draw.spatial is draw.intensity is None
        image, label = made.sampler.read(draw.request, PATCH)
        assert torch.equal(images[position], torch.from_numpy(image))
        assert torch.equal(labels[position], torch.from_numpy(label))


def test_each_sample_sits_at_its_own_position_whether_warped_or_not(store):
    silent = (
        "noise",
        "blur",
        "brightness",
        "contrast",
        "low_resolution",
        "gamma",
        "gamma_inverted",
        "mirror",
        "scaling",
    )
    never = Augmentation(**dict.fromkeys(silent, 0), rotation=0.5)
    made = source(store, augmentation=never)
    mixed = [step for step in range(8) if 0 < len(made.read(step).warped) < 4]
    assert mixed
    for step in mixed:
        raw = made.read(step)
        images, labels = raw.finish(CPU)
        for position in range(4):
            draw = made.draw(step, position)
            plain = draw.spatial is None
            assert plain == (position not in raw.warped)
            image, label = made.sampler.read(draw.request, PATCH)
            assert plain == torch.allclose(images[position], torch.from_numpy(image))
            centre = tuple(n // 2 for n in PATCH)
            if plain:
                assert labels[position][centre] == label[centre]


def test_two_ranks_together_draw_the_batch_of_one(store):
    whole = source(store).read(9).finish(CPU)
    parts = [
        source(store, positions=positions).read(9).finish(CPU)
        for positions in ([0, 1], [2, 3])
    ]
    torch.testing.assert_close(
        torch.cat([part[0] for part in parts]), whole[0], atol=1e-3, rtol=1e-3
    )
    labels = torch.cat([part[1] for part in parts])
    # the common box differs, so ties may fall otherwise
    assert (labels != whole[1]).float().mean() < 0.005


def test_steps_seeds_and_streams_give_different_batches(store):
    batches = [
        source(store).read(0),
        source(store).read(1),
        source(store, seed=6).read(0),
        source(store, stream=1).read(0),
    ]
    finished = [raw.finish(CPU)[0] for raw in batches]
    assert not any(torch.equal(finished[0], other) for other in finished[1:])


def test_finishing_does_not_change_what_was_read(store):
    raw = source(store).read(0)
    as_read = [part.clone() for part in raw.plain]
    first = raw.finish(CPU)
    assert equal(raw.plain, as_read)
    assert equal(raw.finish(CPU), first)


@pytest.mark.parametrize("workers", [0, 3])
def test_an_error_of_a_reader_reaches_the_caller(store, workers):
    made = source(store)
    (store.folder / "a.image.b2nd").unlink()
    (store.folder / "b.image.b2nd").unlink()
    with pytest.raises(Exception, match="damaged"):
        list(stream(made, range(5), device=CPU, workers=workers))


def test_a_stream_may_be_left_early(store):
    batches = stream(source(store), range(1000), device=CPU, workers=3)
    next(batches)
    batches.close()
