"""The mask channel: made before normalisation, never touched by grey-value changes; and
the loss of whole channels.
"""

import dataclasses

import numpy as np
import pytest
import torch

from planning.plans import planned
from trivox.config.options import Augmentation
from trivox.datasets.reading import read_case
from trivox.planning.fingerprint import measure
from trivox.preparation.batches import BatchSource
from trivox.preparation.grid import prepare
from trivox.preparation.intensity import apply_intensity, draw_intensity
from trivox.preparation.normalise import foreground_mask, normalise
from trivox.preparation.preprocess import preprocess
from trivox.preparation.sampler import PatchSampler

EVERYTHING = Augmentation(
    noise=1,
    noise_sigma=(0.1, 0.1),
    blur=1,
    brightness=1,
    contrast=1,
    low_resolution=1,
    gamma=1,
    gamma_inverted=1,
    per_channel=1,
    rotation=0,
    scaling=0,
)


@pytest.fixture(scope="module")
def masked(phantoms):
    return planned(
        (measure(phantoms), phantoms),
        network="unet-tiny",
        patch_size=(8, 16, 16),
        batch_size=2,
        mask_channel=True,
        masked_normalisation=True,
    )


def read(phantoms, plan):
    return read_case(phantoms.cases[0], channels=2, labels=plan.labels)


def test_the_mask_is_where_any_channel_of_the_source_is_not_zero(phantoms, masked):
    case = read(phantoms, masked)
    case.image[:] += 10
    # the upper part is empty, the next slices in one channel only
    case.image[:, :3] = 0
    case.image[0, :6] = 0
    plan = masked.model_copy(update={"spacing": case.spacing, "axis_order": (0, 1, 2)})
    prepared = prepare(case, plan).image
    assert prepared.shape[0] == 3
    mask = foreground_mask(case.image).astype(np.float32)
    assert np.array_equal(prepared[2].numpy(), mask)
    assert prepared[2, :3].sum() == 0
    assert prepared[2, 3:6].min() == 1


def test_the_mask_stays_zero_and_one_at_another_spacing(phantoms, masked):
    case = read(phantoms, masked)
    case.image[:, :4] = 0
    plan = masked.model_copy(update={"spacing": tuple(0.7 * s for s in masked.spacing)})
    assert set(prepare(case, plan).image[2].unique().tolist()) == {0.0, 1.0}


def test_channels_look_the_same_with_and_without_the_mask(phantoms, masked):
    case = read(phantoms, masked)
    without = masked.model_copy(update={"mask_channel": False})
    assert torch.equal(prepare(case, masked).image[:2], prepare(case, without).image)


def test_inputs_and_preparation_key_know_the_mask(masked):
    without = masked.model_copy(update={"mask_channel": False})
    assert masked.inputs == (*masked.channels, "mask")
    assert without.inputs == masked.channels
    assert masked.preparation_key != without.preparation_key


def test_a_channel_that_is_absent_stays_zero_under_every_scheme(masked):
    image = np.random.default_rng(0).normal(5, 2, (2, 4, 5, 6)).astype(np.float32)
    image[1] = 0
    for scheme in ("z-score", "ct", "rescale-0-1", "rgb-0-1"):
        how = masked.normalisations[0].model_copy(
            update={"scheme": scheme, "mean": 3.0, "low": -1, "high": 9}
        )
        result = normalise(image, (how, how))
        assert not result[1].any()
        assert result[0].any()


def images(channels=3):
    data = torch.randn(2, channels, 6, 8, 7, generator=torch.Generator().manual_seed(0))
    data[:, -1] = (data[:, -1] > 0).float()
    return data


def test_grey_value_changes_leave_masks_alone():
    rng = np.random.default_rng(0)
    before = images()
    changes = [draw_intensity(rng, EVERYTHING, 2) for _ in range(2)]
    after = apply_intensity(before.clone(), changes)
    assert torch.equal(after[:, 2], before[:, 2])
    assert not torch.equal(after[:, :2], before[:, :2])


def test_channels_beside_a_mask_change_as_they_do_alone():
    changes = [
        draw_intensity(np.random.default_rng(i), EVERYTHING, 2) for i in range(2)
    ]
    alone = apply_intensity(images()[:, :2].contiguous(), changes)
    assert torch.equal(apply_intensity(images(), changes)[:, :2], alone)


def test_batches_of_a_store_keep_their_mask_binary_under_grey_value_changes(
    phantoms, masked, tmp_path
):
    store = preprocess(phantoms, masked, tmp_path)
    sampler = PatchSampler(
        store, [case.name for case in phantoms.training_cases], masked.patch_size, 2
    )
    source = BatchSource(
        sampler,
        seed=1,
        spacing=masked.spacing,
        positions=range(2),
        augmentation=EVERYTHING,
        masks=1,
    )
    batch, _ = source.read(0).finish(torch.device("cpu"))
    assert batch.shape[1] == 3
    assert set(batch[:, 2].unique().tolist()) <= {0.0, 1.0}
    spoilt, _ = dataclasses.replace(source, masks=0).read(0).finish(torch.device("cpu"))
    assert not set(spoilt[:, 2].unique().tolist()) <= {0.0, 1.0}


def test_a_dropped_channel_is_zero_and_the_others_are_as_without():
    settings = Augmentation(drop_channel=1.0)
    change = draw_intensity(np.random.default_rng(3), settings, 2)
    whole = dataclasses.replace(change, dropped=None)
    with_drop, without = (apply_intensity(images()[:1], [c]) for c in (change, whole))
    assert not with_drop[0, change.dropped].any()
    other = 1 - change.dropped
    assert torch.equal(with_drop[0, other], without[0, other])
    assert with_drop[0, 2].any()  # the mask is never dropped


def test_channels_are_dropped_as_often_as_asked_and_each_as_often_as_the_others():
    rng = np.random.default_rng(0)
    drawn = [
        draw_intensity(rng, Augmentation(drop_channel=0.3), 4).dropped
        for _ in range(4000)
    ]
    share = np.mean([channel is not None for channel in drawn])
    counts = np.bincount(
        [channel for channel in drawn if channel is not None], minlength=4
    )
    assert abs(share - 0.3) < 0.03
    assert counts.min() > 0.8 * counts.mean()


def test_the_only_channel_is_never_dropped():
    rng = np.random.default_rng(0)
    assert all(
        draw_intensity(rng, Augmentation(drop_channel=1.0), 1).dropped is None
        for _ in range(20)
    )


def test_asking_to_drop_changes_no_other_draw():
    one = draw_intensity(np.random.default_rng(5), Augmentation(), 3)
    other = draw_intensity(np.random.default_rng(5), Augmentation(drop_channel=1.0), 3)
    for field in dataclasses.fields(one):
        if field.name != "dropped":
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name))
