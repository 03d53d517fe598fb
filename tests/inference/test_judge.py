"""What a prediction says about itself, through the predictor: volumes, flags, samples."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import t as students_t
from torch import nn

from trivox.inference.doubt.conformal import VolumeBand, VolumeIntervals
from trivox.inference.doubt.likeness import FEWEST, learn_likeness, look_at
from trivox.inference.judge import interval_of_levels, interval_of_votes
from trivox.inference.predictor import Predictor
from trivox.inference.prepare import prepare_image
from trivox.inference.rules.postprocess import Postprocessing
from voting_models import (
    IMAGE,
    PADDED,
    REGIONS,
    RULE,
    SEVERAL,
    Blurred,
    made,
    voting,
)


@pytest.fixture(scope="module")
def loaded(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture
def predictor(loaded):
    return partial(voting, loaded)


# -- volumes ---------------------------------------------------------------------------
def test_volumes_are_those_of_the_label_map(predictor):
    found = made(predictor, "one vote").predict_volume(IMAGE)
    for value, name in ((7, "organ"), (300, "lesion")):
        expected = (found.labels.array == value).sum() * IMAGE.voxel_ml
        assert found.trust["volumes"][name] == {"volume_ml": pytest.approx(expected)}
    assert sum(v["volume_ml"] for v in found.trust["volumes"].values()) > 0


@pytest.mark.parametrize(
    "rules",
    [Postprocessing(), Postprocessing(largest_foreground=True, largest_of=(2,))],
)
def test_one_vote_gives_a_band_of_probability_levels(predictor, rules):
    found = made(predictor, "one vote", postprocessing=rules).predict_volume(
        IMAGE, probabilities=True
    )
    assert "votes" not in found.trust
    plain = made(predictor, "one vote").predict_volume(IMAGE)
    untouched, cleaned = (
        np.searchsorted([0, 7, 300], p.labels.array[0]) for p in (plain, found)
    )
    for channel, entry in enumerate(found.trust["volumes"].values(), start=1):
        low, high = entry["ci95_ml"]
        assert low <= entry["volume_ml"] <= high
        assert low < high
        assert entry["method"] == "probability_levels"
        chance = found.probabilities.array[channel][PADDED[0] != 0]
        assert entry["expected_ml"] == pytest.approx(
            chance.sum() * IMAGE.voxel_ml, rel=1e-4
        )
        raw = untouched[PADDED[0] != 0] == channel
        clean = cleaned[PADDED[0] != 0] == channel
        possible = ((chance > 0.025) & ~(raw & ~clean)) | clean
        expected = possible.sum() * IMAGE.voxel_ml
        assert high == pytest.approx(expected, rel=1e-3)
    assert (untouched != cleaned).any() == (rules != Postprocessing())


@pytest.mark.parametrize("setup", SEVERAL)
def test_several_votes_give_a_t_interval_of_their_volumes(predictor, setup):
    found = made(predictor, setup).predict_volume(IMAGE, uncertainty=["entropy"])
    for entry in found.trust["volumes"].values():
        low, high = entry["ci95_ml"]
        assert 0 <= low <= high
        assert entry["method"] == "t_of_votes"


def test_votes_of_an_ensemble_are_counted_one_by_one(predictor):
    networks = [Blurred(), Blurred(seed=1), Blurred(seed=2)]
    alone = [
        predictor([n]).predict_volume(IMAGE).trust["volumes"]["lesion"]["volume_ml"]
        for n in networks
    ]
    entry = (
        predictor(networks)
        .predict_volume(IMAGE, uncertainty=["variance"])
        .trust["volumes"]["lesion"]
    )
    assert entry["ci95_ml"] == pytest.approx(
        interval_of_votes(np.array(alone)), rel=1e-2
    )


def test_the_interval_of_votes_is_the_textbooks():
    values = np.array([10.0, 12.0, 11.0, 13.0])
    half = students_t.ppf(0.975, 3) * values.std(ddof=1) * math.sqrt(1 + 1 / 4)
    assert interval_of_votes(values) == pytest.approx((11.5 - half, 11.5 + half))
    assert interval_of_votes(np.array([1.0, 2.0]))[0] == 0


def test_a_further_vote_falls_into_the_interval_as_often_as_it_says():
    draws = np.random.default_rng(0).normal(50, 3, (4000, 6))
    inside = []
    for votes in draws:
        low, high = interval_of_votes(votes[:-1])
        inside.append(low <= votes[-1] <= high)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)


def test_levels_keep_what_was_found_and_leave_out_what_was_removed():
    chance = np.array([0.99, 0.98, 0.6, 0.03, 0.99, 0.01])
    found = np.array([True, True, True, False, False, False])
    removed = np.array([False, False, False, False, True, False])
    assert interval_of_levels(chance, found, removed) == (2, 4)


# -- flags -----------------------------------------------------------------------------
@pytest.mark.parametrize("setup", ["one vote", "folds", "regions", "models"])
def test_the_score_of_a_case_does_not_depend_on_what_else_was_asked_for(
    predictor, setup
):
    model = made(predictor, setup, abstention=RULE, temperature=1.5)
    plain = model.predict_volume(IMAGE)
    detailed = model.predict_volume(IMAGE, uncertainty=["entropy"])
    assert plain.trust["score"] == pytest.approx(detailed.trust["score"], rel=1e-3)
    chance = model.predict_volume(IMAGE, probabilities=True).probabilities.array[
        :, PADDED[0] != 0
    ]
    chance = torch.from_numpy(chance)
    if setup == "regions":
        entropy = (torch.special.entr(chance) + torch.special.entr(1 - chance)).mean(0)[
            (chance > 0.5).any(0)
        ]
    else:
        entropy = torch.special.entr(chance).sum(0)[chance.argmax(0) > 0]
    assert plain.trust["score"] == pytest.approx(float(entropy.mean()), rel=0.01)


@pytest.mark.parametrize(("threshold", "flagged"), [(0.0, True), (2.0, False)])
def test_doubt_above_the_threshold_is_flagged_with_a_reason(
    predictor, threshold, flagged
):
    rule = RULE.model_copy(update={"threshold": threshold})
    trust = made(predictor, "one vote", abstention=rule).predict_volume(IMAGE).trust
    assert trust["abstain"] is flagged
    assert (trust["reason"] is None) is not flagged
    assert flagged is (f"{trust['score']:.3f}" in str(trust["reason"]))


def test_a_case_where_nothing_is_found_is_flagged(predictor):
    class Nothing(nn.Module):
        def forward(self, images):
            return torch.cat([images * 0 + 5, images * 0, images * 0], 1)

    for members in ([[Nothing()]], [[Nothing()], [Nothing()]]):
        trust = predictor(*members, abstention=RULE).predict_volume(IMAGE).trust
        assert (trust["abstain"], trust["score"], trust["reason"]) == (
            True,
            None,
            "no foreground was found",
        )


def test_without_a_rule_no_case_is_judged(predictor):
    assert set(made(predictor, "one vote").predict_volume(IMAGE).trust) == {"volumes"}


def test_models_with_a_rule_each_share_the_mean_threshold(predictor):
    both = predictor([Blurred()], [Blurred(seed=1)])
    higher = RULE.model_copy(update={"threshold": 0.6})
    plain = both.descriptions[0]
    first, second = (
        plain.model_copy(update={"abstention": rule}) for rule in (RULE, higher)
    )
    ruled = Predictor((first, second), both.members)
    assert ruled.abstention.threshold == pytest.approx(0.5)
    assert Predictor((first, plain), both.members).abstention is None


# -- the sample ------------------------------------------------------------------------
@pytest.mark.parametrize("setup", ["one vote", "regions", "turned"])
def test_sampled_logits_and_references_belong_together(predictor, setup):
    """The reference is the prediction itself, so that its classes must be those of the
    largest logits.
    """
    model = made(predictor, setup)
    plain = model.predict_volume(IMAGE)
    reference = model.labels.encode(plain.labels.array[0])
    found = model.predict_volume(IMAGE, reference=reference)
    assert np.array_equal(found.labels.array, plain.labels.array)
    assert plain.sample is None
    logits = found.sample.logits
    known = found.sample.reference
    decided = (
        logits.argmax(1)
        if setup != "regions"
        else torch.from_numpy(REGIONS.paint_regions((logits.T > 0).numpy()))
    )
    assert len(known) > 500
    assert (decided == known).float().mean() > 0.99


def noisy(seed, noise=100):
    rng = np.random.default_rng(seed)
    change = rng.normal(0, noise, IMAGE.array.shape) * (IMAGE.array != 0)
    return IMAGE.with_array((IMAGE.array + change).astype(np.float32))


def look_of(image, model):
    plan = model.members[0].plan
    prepared = prepare_image(image, model.members, where="image")[0]
    return look_at(
        prepared.image,
        channels=1,
        source_spacing=prepared.record.cropped_spacing,
        spacing=plan.spacing,
    )


@pytest.mark.parametrize(("noise", "unlike"), [(100, False), (3000, True)])
def test_an_image_unlike_the_training_images_is_flagged_whatever_the_network_says(
    predictor, noise, unlike
):
    model = made(predictor, "one vote")
    plan = model.members[0].plan
    looks = [look_of(noisy(seed), model) for seed in range(FEWEST)]
    likeness = learn_likeness(looks, channels=plan.channels, axes=plan.axis_order)
    asked = made(predictor, "one vote", likeness=likeness)
    trust = asked.predict_volume(noisy(100, noise)).trust
    assert trust["abstain"] is bool(trust["unlike"]) is unlike
    assert "score" not in trust
    if unlike:
        start = "not like the training images: intensities of contrast_0 (distance"
        assert trust["reason"].startswith(start)


# -- intervals of volumes --------------------------------------------------------------
def band(low, high):
    return VolumeBand(low=low, high=high, cases=20)


def known(organ, lesion=None):
    return VolumeIntervals(offset_ml=0.001, targets={"organ": organ, "lesion": lesion})


def test_a_model_that_knows_it_says_where_the_true_volume_lies(predictor):
    intervals = known(band(-0.3, 0.2))
    trust = made(predictor, "one vote", volumes=intervals).predict_volume(IMAGE).trust
    organ, lesion = (trust["volumes"][name] for name in ("organ", "lesion"))
    bounds = intervals.interval("organ", organ["volume_ml"])
    assert (organ["volume_ml_low"], organ["volume_ml_high"]) == bounds
    assert bounds[0] < organ["volume_ml"] < bounds[1]
    assert lesion["volume_ml_low"] is lesion["volume_ml_high"] is None
    assert "caution" not in organ
    plain = made(predictor, "one vote").predict_volume(IMAGE).trust["volumes"]
    assert set(plain["organ"]) == {"volume_ml"}


def test_several_models_give_the_interval_that_holds_those_of_all(predictor):
    model = predictor([Blurred()], [Blurred(seed=1)], volumes=known(band(-0.3, 0.2)))
    first, second = model.descriptions
    wider = second.model_copy(update={"volumes": known(band(-0.1, 0.5))})
    joined = replace(model, descriptions=(first, wider))
    organ = joined.predict_volume(IMAGE).trust["volumes"]["organ"]
    low, _ = first.volumes.interval("organ", organ["volume_ml"])
    _, high = wider.volumes.interval("organ", organ["volume_ml"])
    assert (organ["volume_ml_low"], organ["volume_ml_high"]) == (low, high)
    unknown = second.model_copy(update={"volumes": None})
    silent = replace(model, descriptions=(first, unknown)).predict_volume(IMAGE).trust
    assert "volume_ml_low" not in silent["volumes"]["organ"]


def test_an_image_unlike_the_training_images_says_so_beside_the_interval(predictor):
    model = made(predictor, "one vote")
    plan = model.members[0].plan
    looks = [look_of(noisy(seed), model) for seed in range(FEWEST)]
    likeness = learn_likeness(looks, channels=plan.channels, axes=plan.axis_order)
    asked = made(
        predictor, "one vote", likeness=likeness, volumes=known(band(-0.3, 0.2))
    )
    for noise, unlike in ((100, False), (3000, True)):
        volumes = asked.predict_volume(noisy(100, noise)).trust["volumes"]
        assert ("caution" in volumes["organ"]) is unlike
        assert "caution" not in volumes["lesion"]  # it has no interval
