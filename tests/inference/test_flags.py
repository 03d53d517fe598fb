"""Which score flags a case: entropy, or how little the votes agree."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from trivox.inference import decide
from trivox.inference.bundle import read_bundle
from trivox.inference.decide import Pollster
from trivox.inference.doubt.flags import Flag, flag_of
from trivox.inference.doubt.kinds import Extras
from trivox.inference.predictor import Predictor
from voting_models import IMAGE, RULE, Blurred, made, voting

DISAGREEMENT = RULE.model_copy(
    update={"score": "disagreement_of_votes", "threshold": 0.1}
)


def flag(chosen="agreement", votes=4, threshold=0.1):
    rule = DISAGREEMENT.model_copy(update={"threshold": threshold})
    areas = {"entropy": 0.2, "agreement": 0.1}
    return Flag(chosen=chosen, aurc=areas, cases=9, votes=votes, rule=rule)


@pytest.fixture(scope="module")
def loaded(tiny_run):
    return Predictor.load(tiny_run, device="cpu", precision="fp32")


@pytest.fixture
def predictor(loaded):
    return partial(voting, loaded)


@pytest.mark.parametrize("setup", ["folds", "mirrored", "regions"])
def test_votes_that_are_only_compared_agree_as_those_of_which_more_is_wanted(
    predictor, setup
):
    model = made(predictor, setup)
    plain = model.predict_volume(IMAGE)
    detailed = model.predict_volume(IMAGE, uncertainty=["entropy"])
    comparing = replace(model, extras=Extras(compared=True))
    compared = comparing.predict_volume(IMAGE)
    assert np.array_equal(compared.labels.array, plain.labels.array)
    for name in ("votes", "agreement"):
        assert compared.trust[name] == pytest.approx(detailed.trust[name])
    assert 0 < compared.trust["agreement"] < 1
    assert "agreement" not in plain.trust
    assert all("ci95_ml" not in row for row in compared.trust["volumes"].values())
    asked = comparing.predict_volume(IMAGE, probabilities=True)
    assert asked.trust["agreement"] == pytest.approx(detailed.trust["agreement"])


def test_a_single_vote_is_compared_with_none(predictor):
    model = replace(made(predictor, "one vote"), extras=Extras(compared=True))
    assert set(model.predict_volume(IMAGE).trust) == {"volumes"}


@pytest.mark.parametrize(("threshold", "flagged"), [(0.0, True), (0.99, False)])
def test_votes_that_agree_too_little_are_flagged_with_a_reason(
    predictor, threshold, flagged
):
    model = made(predictor, "mirrored", abstention=RULE, flag=flag(threshold=threshold))
    trust = model.predict_volume(IMAGE).trust
    assert (trust["flag"], trust["votes"]) == ("agreement", 4)
    assert trust["score"] == pytest.approx(1 - trust["agreement"])
    assert trust["abstain"] is flagged
    said = f"overlap with a Dice of {trust['agreement']:.3f} only, below 1.000"
    assert (trust["reason"] is not None and said in trust["reason"]) is flagged


def test_where_nothing_is_found_votes_have_no_score(predictor):
    class Nothing(nn.Module):
        def forward(self, images):
            return torch.cat([images * 0 + 5, images * 0, images * 0], 1)

    model = predictor([Nothing()], mirror=(1, 2), abstention=RULE, flag=flag())
    trust = model.predict_volume(IMAGE).trust
    assert (trust["abstain"], trust["score"], trust["flag"]) == (
        True,
        None,
        "agreement",
    )
    assert trust["reason"] == "no foreground was found"


@pytest.mark.parametrize(
    ("setup", "known"),
    [
        ("mirrored", None),
        ("mirrored", flag("entropy")),
        ("mirrored", flag(votes=8)),
        ("one vote", flag()),
        ("models", flag(votes=3)),
        ("scales", flag(votes=3)),
        ("dropout", flag(votes=3)),
    ],
)
def test_where_votes_are_not_those_of_validation_entropy_flags(predictor, setup, known):
    model = made(predictor, setup, abstention=RULE, flag=known)
    assert model.flag is None
    trust = model.predict_volume(IMAGE).trust
    assert trust["flag"] == "entropy"
    plain = made(predictor, setup, abstention=RULE).predict_volume(IMAGE).trust
    assert trust == plain


def test_votes_that_would_take_much_memory_are_not_compared(predictor, monkeypatch):
    model = made(predictor, "mirrored", abstention=RULE, flag=flag())
    plain = made(predictor, "mirrored", abstention=RULE).predict_volume(IMAGE).trust
    monkeypatch.setattr(decide, "COMPARED_BYTES", 1000)
    assert model.predict_volume(IMAGE).trust == plain
    assert plain["flag"] == "entropy"


class Counting(Blurred):
    """Knows how many windows it has seen."""

    seen = 0

    def forward(self, images):
        self.seen += len(images)
        return super().forward(images)


def test_what_flags_costs_no_pass_through_the_network(predictor, monkeypatch):
    seen = []
    for known in (None, flag("entropy"), flag()):
        network = Counting()
        model = predictor([network], mirror=(1, 2), abstention=RULE, flag=known)
        model.predict_volume(IMAGE)
        seen.append(network.seen)
    assert seen[0] == seen[1] == seen[2] > 0
    monkeypatch.setattr(Pollster, "compare", None)
    predictor(
        [Blurred()], mirror=(1, 2), abstention=RULE, flag=flag("entropy")
    ).predict_volume(IMAGE)


def test_only_a_model_alone_flags_by_votes(tiny_run):
    description = read_bundle(tiny_run).description
    known = description.model_copy(update={"flag": flag()})
    assert flag_of([known], 4) == flag()
    assert flag_of([known], 8) is None
    assert flag_of([known, known], 4) is None
    assert flag_of([description], 4) is None
    assert description.flag is None
    assert type(known).model_validate_json(known.model_dump_json()) == known
