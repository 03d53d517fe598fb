"""Votes and what they say, through the predictor: doubt, volumes, flags.

Networks that need no training stand in.
"""

import dataclasses
import math

import numpy as np
import pytest
import torch
from scipy.special import entr
from scipy.stats import t as students_t
from torch import nn

from trivox.datasets.labels import LabelScheme
from trivox.datasets.phantoms.ellipsoids import PhantomSettings, phantom_case
from trivox.errors import BundleError, RecipeError
from trivox.inference.bundle import read_bundle
from trivox.inference.doubt.calibration import Abstention
from trivox.inference.doubt.kinds import KINDS
from trivox.inference.doubt.uncertainty import wake_dropout
from trivox.inference.engines.torch import torch_engines
from trivox.inference.judge import interval_of_levels, interval_of_votes
from trivox.inference.members import scaled_spacing
from trivox.inference.predictor import Predictor
from trivox.inference.rules.postprocess import Postprocessing
from trivox.learning.runtime import Runtime
from trivox.volumes.volume import Volume

CPU = Runtime(torch.device("cpu"), "fp32")
SCAN, LABEL = phantom_case(
    PhantomSettings(cases=1, shape=(14, 18, 15), spacing=(2.0, 1.5, 1.5)), 0
)
PADDED = np.zeros((1, 20, 30, 28), np.int16)
PADDED[:, 3:17, 6:24, 8:23] = SCAN.array + 20000  # nowhere zero inside
TURN = np.array(
    [
        [0.0, -1.0, 0.0, 3.0],
        [0.96, 0.0, 0.28, -7.0],
        [-0.28, 0.0, 0.96, 11.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
IMAGE = Volume(PADDED, TURN @ SCAN.affine)
RULE = Abstention(
    threshold=0.4, poor_dice=0.7, rule="", cases=9, poor=1, flagged=1, flagged_poor=1
)
REGIONS = LabelScheme(
    labels={"a": 7, "b": 300},
    regions={"whole": (7, 300), "core": (300,)},
    region_order=(7, 300),
)


class Blurred(nn.Module):
    """Brightness to logits of three classes through a small convolution that knows left
    from right.
    """

    def __init__(self, outputs=3, seed=0, dropout=0.0):
        super().__init__()
        self.convolution = nn.Conv3d(1, outputs, 3, padding=1)
        generator = torch.Generator().manual_seed(seed)
        self.convolution.weight.data = (
            torch.randn(self.convolution.weight.shape, generator=generator) * 0.6
        )
        self.convolution.bias.data = torch.linspace(0.5, -0.5, outputs)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images):
        return self.convolution(self.dropout(images)) * 2


@pytest.fixture(scope="module")
def loaded(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


def replaced(member, order):
    return dataclasses.replace(
        member, plan=member.plan.model_copy(update={"axis_order": order})
    )


@pytest.fixture
def predictor(loaded):
    """Builds a predictor: networks of one member, or several members; settings of the
    bundle by name.
    """

    def build(
        *members,
        mirror=(),
        plan=None,
        orders=None,
        passes=0,
        seed=0,
        scales=(1.0,),
        **description,
    ):
        first = loaded.members[0]
        plan = first.plan.model_copy(update=plan or {})
        changes = {"postprocessing": Postprocessing(), **description}
        model = loaded.descriptions[0].model_copy(update=changes)
        made = []
        for networks in members:
            windows = dataclasses.replace(
                first.windows,
                engines=torch_engines([n.eval() for n in networks], CPU),
                mirror_axes=mirror,
                outputs=plan.labels.output_channels,
            )
            for scale in scales:
                spacing = scaled_spacing(plan, scale)
                member = dataclasses.replace(
                    first,
                    plan=plan.model_copy(update={"spacing": spacing}),
                    passes=passes,
                    windows=windows,
                    temperature=description.get("temperature", 1.0),
                )
                made.append(member)
        if orders:
            made = [replaced(m, order) for m, order in zip(made, orders, strict=True)]
        return Predictor((model,) * len(members), tuple(made), tuple(scales), seed)

    return build


def dropping(seed=0):
    network = Blurred(dropout=0.3, seed=seed).eval()
    wake = type(
        "Awake", (Blurred,), {"eval": lambda self: self}
    )  # the fixture's eval() must not silence it
    network.__class__ = wake
    wake_dropout(network)
    return network


SETUPS = {
    "one vote": ([[Blurred()]], {}),
    "folds": ([[Blurred(), Blurred(seed=1)]], {}),
    "mirrored": ([[Blurred()]], {"mirror": (1, 2)}),
    "scales": ([[Blurred()]], {"scales": (0.8, 1.0, 1.25)}),
    "models": ([[Blurred()], [Blurred(seed=1), Blurred(seed=2)]], {}),
    "dropout": ([[dropping()]], {"passes": 3}),
    "regions": ([[Blurred(2), Blurred(2, seed=1)]], {"plan": {"labels": REGIONS}}),
    "two regions models": (
        [[Blurred(2)], [Blurred(2, seed=1)]],
        {"plan": {"labels": REGIONS}},
    ),
    "turned": ([[Blurred()]], {"plan": {"axis_order": (2, 0, 1)}}),
    "other axes": (
        [[Blurred()], [Blurred(seed=1)]],
        {"orders": ((0, 1, 2), (2, 0, 1))},
    ),
}
ALONE = ("one vote", "turned")
several = pytest.mark.parametrize(
    "setup", [name for name in SETUPS if name not in ALONE]
)


def made(predictor, setup, **changes):
    members, settings = SETUPS[setup]
    return predictor(*members, **{**settings, **changes})


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


@several
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
        with pytest.raises(RecipeError, match="single vote"):
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
    with pytest.raises(RecipeError, match="scales"):
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
        raw, kept = (
            labels[PADDED[0] != 0] == channel for labels in (untouched, cleaned)
        )
        expected = (((chance > 0.025) & ~(raw & ~kept)) | kept).sum() * IMAGE.voxel_ml
        assert high == pytest.approx(expected, rel=1e-3)
    assert (untouched != cleaned).any() == (rules != Postprocessing())


@several
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
    inside = [
        low <= more <= high
        for (*votes, more) in draws
        for low, high in [interval_of_votes(np.array(votes))]
    ]
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
    plain, detailed = (
        model.predict_volume(IMAGE),
        model.predict_volume(IMAGE, uncertainty=["entropy"]),
    )
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
    logits, known = found.sample.logits, found.sample.reference
    decided = (
        logits.argmax(1)
        if setup != "regions"
        else torch.from_numpy(REGIONS.paint_regions((logits.T > 0).numpy()))
    )
    assert len(known) > 500
    assert (decided == known).float().mean() > 0.99
