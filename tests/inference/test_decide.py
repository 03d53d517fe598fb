"""Votes through the predictor: doubt, Monte Carlo dropout, scales, temperature."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import entr

from trivox.errors import BundleError, UsageError
from trivox.inference.bundle import read_bundle
from trivox.inference.doubt.kinds import KINDS
from trivox.inference.members import scaled_spacing
from trivox.inference.predictor import Predictor
from voting_models import (
    ALONE,
    IMAGE,
    PADDED,
    SETUPS,
    SEVERAL,
    Blurred,
    dropping,
    made,
    voting,
)


@pytest.fixture(scope="module")
def loaded(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture
def predictor(loaded):
    return partial(voting, loaded)


# -- doubt -----------------------------------------------------------------------------
@pytest.mark.parametrize("setup", list(SETUPS))
def test_asking_for_doubt_changes_neither_labels_nor_probabilities(predictor, setup):
    model = made(predictor, setup, temperature=1.7)
    kinds = ("entropy",) if setup in ALONE else KINDS
    plain = model.predict_volume(IMAGE)
    found = model.predict_volume(IMAGE, uncertainty=kinds)
    both = model.predict_volume(IMAGE, uncertainty=kinds, probabilities=True)
    assert len(np.unique(plain.labels.array)) > 1
    for other in (found, both):
        assert (
            other.labels.array == plain.labels.array
        ).mean() > 0.9995  # the order of sums decides exact ties
        assert set(other.uncertainty) == set(kinds)
    chance = model.predict_volume(IMAGE, probabilities=True).probabilities.array
    assert np.allclose(both.probabilities.array, chance, atol=1e-5)


@pytest.mark.parametrize("setup", SEVERAL)
def test_maps_lie_on_the_source_grid_and_doubt_nothing_outside_the_crop(
    predictor, setup
):
    found = made(predictor, setup).predict_volume(IMAGE, uncertainty=KINDS)
    limits = {"entropy": math.log(2 if "regions" in setup else 3), "variance": 0.25}
    limits["mutual_information"] = limits["entropy"]
    for kind, volume in found.uncertainty.items():
        assert volume.array.shape == IMAGE.array.shape
        assert volume.array.dtype == np.float32
        assert np.array_equal(volume.affine, IMAGE.affine)
        assert (volume.array[PADDED == 0] == 0).all()
        inside = volume.array[PADDED != 0]
        assert 0 <= inside.min() < inside.max() <= limits[kind] + 1e-5
    entropy, information = (
        found.uncertainty[kind].array for kind in ("entropy", "mutual_information")
    )
    assert (information <= entropy + 1e-5).all()


def test_the_entropy_of_one_vote_is_that_of_its_probabilities(predictor):
    found = made(predictor, "one vote", temperature=2.0).predict_volume(
        IMAGE, uncertainty=["entropy"], probabilities=True
    )
    expected = entr(found.probabilities.array).sum(0)
    assert np.allclose(found.uncertainty["entropy"].array[0], expected, atol=1e-5)


def test_votes_are_networks_times_mirrored_copies_times_passes_times_scales(predictor):
    model = predictor(
        [dropping(), dropping(1)],
        [dropping(2)],
        mirror=(0, 2),
        passes=3,
        scales=(1.0, 2.0),
    )
    assert model.votes == 3 * 4 * 3 * 2
    trust = (
        predictor([dropping()], mirror=(2,), passes=3)
        .predict_volume(IMAGE, uncertainty=KINDS)
        .trust
    )
    assert trust["votes"] == 6
    assert 0 < trust["agreement"] < 1


def test_equal_votes_agree_and_hold_no_mutual_information(predictor):
    found = predictor([Blurred(), Blurred()]).predict_volume(IMAGE, uncertainty=KINDS)
    assert found.trust["agreement"] == 1
    assert np.allclose(found.uncertainty["mutual_information"].array, 0, atol=1e-5)
    low, high = found.trust["volumes"]["organ"]["ci95_ml"]
    assert low == pytest.approx(high)


def test_a_single_vote_has_nothing_to_compare(predictor):
    model = made(predictor, "one vote")
    for kind in ("mutual_information", "variance"):
        with pytest.raises(UsageError, match="single vote"):
            model.predict_volume(IMAGE, uncertainty=[kind])


# -- Monte Carlo dropout ---------------------------------------------------------------
def test_passes_differ_and_are_repeatable_by_seed(predictor):
    first, again, other = (
        predictor([dropping()], passes=2, seed=seed).predict_volume(
            IMAGE, uncertainty=KINDS, probabilities=True
        )
        for seed in (0, 0, 9)
    )
    assert first.uncertainty["variance"].array.max() > 1e-4
    for kind in KINDS:
        assert np.array_equal(
            first.uncertainty[kind].array, again.uncertainty[kind].array
        )
    assert not np.allclose(
        first.probabilities.array, other.probabilities.array, atol=1e-3
    )


def test_a_case_is_the_same_whatever_came_before_and_outside_nothing_is_seeded(
    predictor,
):
    model = predictor([dropping()], passes=2)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = model.predict_volume(IMAGE).labels.array
    assert torch.equal(torch.rand(3), expected)
    assert np.array_equal(model.predict_volume(IMAGE).labels.array, one)


def test_a_model_without_dropout_refuses_passes(tiny_run):
    with pytest.raises(BundleError, match="no dropout"):
        Predictor.load(tiny_run, device="cpu", mc_samples=4)
    with pytest.raises(UsageError, match="scales"):
        Predictor.load(tiny_run, device="cpu", scales=(0.0,))


# -- scales ----------------------------------------------------------------------------
def test_the_scale_one_is_the_plain_prediction(tiny_run, loaded):
    scaled = Predictor.load(tiny_run, device="cpu", precision="fp32", scales=(1.0,))
    one, other = (p.predict_volume(IMAGE, probabilities=True) for p in (loaded, scaled))
    assert np.array_equal(one.labels.array, other.labels.array)
    assert np.array_equal(one.probabilities.array, other.probabilities.array)


def test_scales_are_averaged_and_each_is_a_spacing(tiny_run, loaded):
    spacing = loaded.members[0].plan.spacing
    models = [
        Predictor.load(tiny_run, device="cpu", precision="fp32", scales=s)
        for s in ((0.5,), (1.5,), (0.5, 1.5))
    ]
    assert np.allclose(models[0].members[0].plan.spacing, 2 * np.array(spacing))
    chances = [
        model.predict_volume(IMAGE, probabilities=True).probabilities.array
        for model in models
    ]
    assert not np.allclose(chances[0], chances[1], atol=1e-3)
    assert np.allclose(chances[2], (chances[0] + chances[1]) / 2, atol=1e-5)
    assert models[2].settings["scales"] == [0.5, 1.5]


def test_slices_are_not_scaled_across(loaded):
    plan = loaded.members[0].plan.model_copy(
        update={"patch_size": (1, 16, 16), "spacing": (5.0, 1.0, 1.0)}
    )
    assert scaled_spacing(plan, 2.0) == (5.0, 0.5, 0.5)


# -- temperature -----------------------------------------------------------------------
@pytest.mark.parametrize("setup", ["one vote", "folds", "mirrored", "regions"])
def test_a_temperature_changes_probabilities_and_no_label(predictor, setup):
    cold, hot = (
        made(predictor, setup, temperature=t).predict_volume(IMAGE, probabilities=True)
        for t in (1.0, 3.0)
    )
    assert np.array_equal(cold.labels.array, hot.labels.array)
    inside = (slice(None), PADDED[0] != 0)
    assert (
        np.abs(hot.probabilities.array[inside] - 0.5).mean()
        < np.abs(cold.probabilities.array[inside] - 0.5).mean()
    )
    assert made(predictor, setup, temperature=3.0).settings["temperature"] == [3.0]


def test_the_temperature_of_a_bundle_is_read_and_old_bundles_have_none(
    tiny_run, loaded
):
    description = read_bundle(tiny_run).description
    content = description.model_dump(mode="json")
    for new in ("temperature", "abstention"):
        content.pop(new)
    old = type(description).model_validate(content)
    assert (old.format_version, old.temperature, old.abstention) == (1, 1.0, None)
    assert loaded.members[0].temperature == description.temperature
