"""Hiding blocks: a pure function of the sample, in blocks that fit the patch, the rest
of the batch untouched.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.config.options import Augmentation
from trivox.preparation.batches import BatchSource
from trivox.preparation.masking import Masked, Masking, block_edges, hide
from trivox.preparation.sampler import PatchSampler, sample_rng
from trivox.preparation.store import Store

few = settings(max_examples=25, deadline=None, derandomize=True)
patches = st.tuples(
    st.sampled_from([1, 3, 8, 20, 64]), st.integers(4, 70), st.integers(4, 70)
)


@few
@given(patch=patches, seed=st.integers(0, 99), share=st.floats(0.2, 0.8))
def test_a_mask_is_made_of_whole_blocks_of_a_shifted_grid(patch, seed, share):
    mask = Masking(share).draw(np.random.default_rng(seed), patch)
    assert mask.shape == patch
    assert mask.dtype == bool
    for axis, edge in enumerate(block_edges(patch)):
        lines = np.moveaxis(mask, axis, 0).reshape(patch[axis], -1)
        changes = np.flatnonzero((lines[1:] != lines[:-1]).any(axis=1)) + 1
        assert len({int(at) % edge for at in changes}) <= 1  # all borders on one grid


@pytest.mark.parametrize("share", [0.3, 0.6, 0.75])
@pytest.mark.parametrize("patch", [(32, 48, 40), (1, 96, 96), (6, 80, 80)])
def test_on_average_the_asked_share_is_hidden(patch, share):
    rng = np.random.default_rng(0)
    hidden = np.mean([Masking(share).draw(rng, patch).mean() for _ in range(60)])
    assert hidden == pytest.approx(share, abs=0.03)


def test_blocks_are_cubes_where_there_is_room_and_thin_where_the_patch_is():
    assert block_edges((128, 128, 64)) == (16, 16, 16)
    assert block_edges((32, 160, 160)) == (8, 16, 16)
    assert block_edges((1, 256, 256)) == (1, 16, 16)
    assert block_edges((2, 12, 3)) == (1, 3, 1)


def test_what_is_hidden_is_zero_and_what_was_there_is_the_target():
    images = torch.randn(2, 3, 4, 5, 6)
    mask = torch.rand(2, 4, 5, 6) < 0.5
    masked, target = hide(images, mask)
    everywhere = mask[:, None].expand_as(images)
    assert torch.equal(target.isnan(), ~everywhere)
    assert torch.equal(target[everywhere], images[everywhere])
    assert not masked[everywhere].any()
    assert torch.equal(masked[~everywhere], images[~everywhere])


@pytest.fixture
def source(tmp_path):
    store = Store(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        store.write(
            name,
            rng.normal(size=(2, 20, 24, 22)).astype(np.float32),
            np.zeros((20, 24, 22), np.int16),
            {},
        )
    sampler = PatchSampler(store, ("a", "b"), (16, 16, 16), 4)
    strong = Augmentation(rotation=1, scaling=1, noise=0, mirror=0.5)
    return BatchSource(sampler, 7, (1.0, 1.0, 1.0), range(4), augmentation=strong)


def hidden(source, step):
    return Masked(source, Masking()).read(step).hidden


def test_the_mask_is_a_function_of_seed_step_and_position_alone(source):
    batch = hidden(source, 3)
    again = hidden(replace(source, augmentation=None), 3)
    part = hidden(replace(source, positions=[3, 1]), 3)
    assert torch.equal(batch, again)
    assert torch.equal(part, batch[[3, 1]])
    assert not torch.equal(batch[0], batch[1])
    others = [
        hidden(replace(source, seed=8), 3),
        hidden(source, 4),
        hidden(replace(source, stream=1), 3),
    ]
    assert not any(torch.equal(batch, other) for other in others)


def test_hiding_changes_nothing_else_about_the_batch(source):
    cpu = torch.device("cpu")
    images, targets = Masked(source, Masking()).read(0).finish(cpu)
    plain, _ = source.read(0).finish(cpu)
    assert torch.equal(torch.where(targets.isnan(), images, targets), plain)
    assert 0.4 < float((~targets.isnan()).float().mean()) < 0.8


def test_masks_use_random_numbers_of_their_own(source):
    """Those of a patch stay what they are: `sample_rng` is asked for another stream."""
    expected = Masking().draw(sample_rng(7, 5, 2, stream=16), (16, 16, 16))
    assert np.array_equal(hidden(source, 5)[2].numpy(), expected)
