"""What is done to a batch together equals what is done to each sample alone."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.config.options import Augmentation
from trivox.preparation.batches import BatchSource, RawBatch
from trivox.preparation.intensity import draw_intensity
from trivox.preparation.parcels import smallest_integers
from trivox.preparation.sampler import PatchSampler
from trivox.preparation.spatial import common_box, draw_spatial

CPU = torch.device("cpu")
OFTEN = Augmentation(
    **dict.fromkeys(
        (
            *("rotation", "scaling", "elastic", "noise", "blur", "brightness"),
            *("contrast", "low_resolution", "gamma", "gamma_inverted", "mirror"),
            "drop_channel",
        ),
        0.5,
    )
)


def raw_batch(seed, patch, spacing, samples, *, labels, channels=2, masks=0):
    """A batch as read: random voxels, blocks of labels from -1 on."""
    rng = np.random.default_rng(seed)
    spatial = [draw_spatial(rng, OFTEN, patch, spacing) for _ in range(samples)]
    intensity = [draw_intensity(rng, OFTEN, channels) for _ in range(samples)]
    warped = [index for index, change in enumerate(spatial) if change is not None]
    changes = [change for change in spatial if change is not None]

    def voxels(count, size):
        image = rng.normal(size=(count, channels + masks, *size)).astype(np.float32)
        blocks = rng.integers(-1, labels, (count, *(n // 3 + 1 for n in size)))
        for axis in (1, 2, 3):
            blocks = blocks.repeat(3, axis)
        whole = blocks[:, : size[0], : size[1], : size[2]].astype(np.int16)
        return torch.from_numpy(image), torch.from_numpy(whole)

    box = common_box(changes, patch) if changes else patch
    return RawBatch(
        plain=voxels(samples - len(warped), patch),
        boxed=voxels(len(warped), box) if warped else None,
        warped=warped,
        spatial=changes,
        intensity=intensity,
    )


def together(batch):
    """The same batch as a GPU makes it, computed on the CPU."""
    changes = batch.changes()
    copies = [
        None if patches is None else tuple(part.clone() for part in patches)
        for patches in (batch.plain, batch.boxed)
    ]
    return changes.apply(changes.tensors, *copies)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    patch=st.tuples(*(st.integers(1, 14),) * 3),
    spacing=st.sampled_from([(1, 1, 1), (3, 1, 1), (1, 2, 0.7)]),
    samples=st.integers(1, 4),
    labels=st.sampled_from([1, 4, 300]),
    masks=st.integers(0, 1),
)
def test_a_batch_is_the_same_together_and_apart(
    seed, patch, spacing, samples, labels, masks
):
    batch = raw_batch(seed, patch, spacing, samples, labels=labels, masks=masks)
    images, indices = together(batch)
    expected, expected_indices = batch.finish(CPU)
    assert images.dtype == expected.dtype
    assert indices.dtype == expected_indices.dtype
    # a power of a value that is 0 but for rounding is steep
    torch.testing.assert_close(images, expected, atol=2e-2, rtol=1e-3)
    assert (images - expected).abs().mean() < 1e-4
    differ = indices != expected_indices
    assert differ.float().mean() <= 0.005 + 3 / differ.numel()  # ties


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([-1, 3], torch.int8),
        ([0, 127], torch.int8),
        ([0, 128], torch.int16),
        ([-1, 300], torch.int16),
    ],
)
def test_labels_take_a_byte_where_they_fit(labels, kind):
    indices = torch.tensor(labels, dtype=torch.int16)
    small = smallest_integers(indices)
    assert small.dtype == kind
    assert small.tolist() == labels


def test_without_augmentation_nothing_is_done(store):
    sampler = PatchSampler(store, ("a", "b"), (8, 8, 8), batch_size=2)
    source = BatchSource(sampler, 5, (1.0, 1.0, 1.0), range(2))
    assert source.read(0).changes() is None
