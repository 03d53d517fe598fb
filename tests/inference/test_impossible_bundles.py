"""Bundles with impossible numbers are refused in one line; networks that give what is
no number never answer.
"""

import dataclasses
import json
import math
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from impossible_bundles import VALUES, altered, places, predicts_or_refuses
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import BundleError, PlanError
from trivox.inference.bundle import read_bundle
from trivox.inference.folder import predict_cases
from trivox.inference.predictor import Predictor
from trivox.inference.reconstructor import Reconstructor
from trivox.planning.plan import read_plan
from voting_models import IMAGE, SETUPS, made, voting

SOME = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module", params=["tiny", "xray"])
def model(request, tmp_path_factory):
    """A copy of a bundle, what it says, and a case for it."""
    run = request.getfixturevalue(f"{request.param}_run")
    data = request.getfixturevalue(f"{request.param}_data")
    bundle = tmp_path_factory.mktemp("impossible") / "bundle"
    shutil.copytree(run / "bundle", bundle)
    content = json.loads((bundle / "bundle.json").read_text())
    case = load_dataset(data).cases[0]
    assert predicts_or_refuses(bundle, content, case) is None
    return bundle, content, case


@SOME
@given(data=st.data())
def test_a_bundle_with_any_field_altered_predicts_or_is_refused(model, data):
    bundle, content, case = model
    place = data.draw(st.sampled_from(list(places(content))))
    value = data.draw(st.sampled_from(VALUES))
    said = predicts_or_refuses(bundle, altered(content, place, value), case)
    assert said is None or "\n" not in said


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("plan", "normalisations", 0), {"scheme": "ct", "std": 0}),
        (("plan", "normalisations", 0, "std"), -1),
        (("plan", "normalisations", 0, "mean"), math.nan),
        (("plan", "spacing", 1), 0),
        (("plan", "spacing", 2), -1.5),
        (("plan", "spacing", 0), 1e308),
        (("plan", "patch_size", 0), 0),
        (("plan", "patch_size", 2), 17),
        (("plan", "patch_size", 2), 2**40),
        (("plan", "axis_order"), [0, 0, 1]),
        (("plan", "channels"), []),
        (("plan", "topology", "strides", 1, 0), 0),
        (("plan", "topology", "features"), [16]),
        (("plan", "labels", "labels"), {"a": 7, "b": 7}),
        (("temperature",), 0),
        (("temperature",), math.inf),
        (("overlap",), 1.0),
        (("postprocessing", "largest_of"), [9]),
        (("postprocessing", "remove_small"), {"organ": -1}),
        (
            ("classification",),
            {"classes": ["a", "a"], "lesion": [1], "width": 8},
        ),
        (("classification",), {"classes": ["a", "b"], "lesion": [7], "width": 8}),
        (
            ("classification",),
            {
                "classes": ["a", "b"],
                "lesion": [1],
                "width": 8,
                "clinical": [{"name": "age"}, {"name": "age"}],
            },
        ),
        (
            ("missed",),
            {"targets": {"liver": {"cases": 9, "thresholds": [None] * 9 + [0.5] * 41}}},
        ),
        (
            ("missed_lesions",),
            {"targets": {"organ": {"cases": 9, "thresholds": [0.5] * 50}}},
        ),
        (("volumes",), {"offset_ml": 1.0, "targets": {"liver": None}}),
        (
            ("abstention",),
            {
                "threshold": math.nan,
                "poor_dice": 0,
                "rule": "",
                "cases": 1,
                "poor": 0,
                "flagged": 0,
                "flagged_poor": 0,
            },
        ),
    ],
)
def test_impossible_numbers_are_named_at_load(tiny_run, tmp_path, place, value):
    content = json.loads((tiny_run / "bundle" / "bundle.json").read_text())
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps(altered(content, place, value)))
    with pytest.raises(BundleError, match=str(place[0])) as raised:
        read_bundle(tmp_path)
    assert str(file) in str(raised.value)
    if place[0] == "plan":
        plan = tmp_path / "plan.json"
        plan.write_text(json.dumps(altered(content["plan"], place[1:], value)))
        with pytest.raises(PlanError, match=str(place[1])):
            read_plan(plan)


# -- networks that give what is no number ------------------------------------------------
class Spoilt(nn.Module):
    """The answers of a network, with a single number that is none."""

    def __init__(self, network, number):
        super().__init__()
        self.network = network
        self.number = number

    def forward(self, images):
        logits = self.network(images)
        logits.flatten()[len(logits.flatten()) // 2] = self.number
        return logits


def spoilt(predictor, number):
    """A predictor whose last network gives one number that is none."""
    *others, member = predictor.members
    *good, engine = member.windows.engines
    bad = dataclasses.replace(engine, network=Spoilt(engine.network, number))
    windows = dataclasses.replace(member.windows, engines=[*good, bad])
    members = (*others, dataclasses.replace(member, windows=windows))
    return dataclasses.replace(predictor, members=members)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "asked", [{}, {"probabilities": True}, {"uncertainty": ["entropy"]}]
)
def test_a_network_that_gives_no_number_never_answers(tiny_run, number, asked):
    good = Predictor.load(tiny_run, device="cpu", precision="fp32")
    with pytest.raises(BundleError, match="NaN or infinity"):
        spoilt(good, number).predict_volume(IMAGE, **asked)


@pytest.mark.parametrize("setup", SETUPS)
def test_nor_does_one_of_several_or_of_regions_or_with_dropout(tiny_run, setup):
    loaded = Predictor.load(tiny_run, device="cpu", precision="fp32")
    good = made(partial(voting, loaded), setup)
    with pytest.raises(BundleError, match="NaN or infinity"):
        spoilt(good, math.nan).predict_volume(IMAGE)


def test_such_a_case_is_set_aside_with_its_name(tiny_run, tiny_data, tmp_path):
    good = Predictor.load(tiny_run, device="cpu", precision="fp32")
    lines = []
    cases = load_dataset(tiny_data).cases[:2]
    records = predict_cases(
        spoilt(good, math.nan), cases, tmp_path / "out", say=lines.append
    )
    assert all("NaN or infinity" in record["error"] for record in records.values())
    assert [line.split(":")[0] for line in lines] == [case.name for case in cases]
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_nor_does_a_reconstruction(xray_run, xray_data):
    good = Reconstructor.load(xray_run, device="cpu", precision="fp32")
    (network,) = good.networks
    with torch.no_grad():
        list(network.parameters())[-1].fill_(math.nan)
    with pytest.raises(BundleError, match="NaN or infinity"):
        good.predict_case(load_dataset(xray_data).cases[0])
    assert np.isfinite(IMAGE.array).all()
