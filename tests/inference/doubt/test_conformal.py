import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trivox.inference.doubt.conformal import (
    LEVEL,
    VolumeBand,
    VolumeIntervals,
    band_of,
    held_by_others,
    joint_interval,
    learn_intervals,
    log_ratios,
)

law = settings(max_examples=60, deadline=None, derandomize=True)
VOLUMES = st.lists(
    st.tuples(st.floats(0, 500), st.floats(0, 500)), min_size=9, max_size=60
)


@pytest.mark.parametrize("cases", [9, 12, 18, 19, 40, 100])
@pytest.mark.parametrize("bias", [0.0, 0.3])
def test_a_new_case_lies_in_the_interval_as_often_as_it_says(cases, bias):
    rng = np.random.default_rng(cases)
    held = []
    for _ in range(1500):
        ratios = rng.standard_t(3, cases + 1) * 0.2 + bias
        band = band_of(ratios[:-1])
        held.append(band.low <= ratios[-1] <= band.high)
    # The guarantee: between level and level + 2 / (n + 1).
    spread = 3 * (0.09 / 1500) ** 0.5
    assert LEVEL - spread <= np.mean(held) <= LEVEL + 2 / (cases + 1) + spread


def test_places_are_those_of_the_rule():
    ratios = np.random.default_rng(0).permutation(np.arange(1.0, 20.0))
    assert band_of(ratios) == VolumeBand(low=1, high=19, cases=19)
    wider = np.arange(1.0, 40.0)
    assert band_of(wider) == VolumeBand(low=2, high=38, cases=39)
    few = np.array([-0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    assert band_of(few) == VolumeBand(low=-0.9, high=0.9, cases=9)
    assert band_of(few[:8]) is None
    assert band_of(np.array([])) is None


@law
@given(volumes=VOLUMES)
def test_cases_that_were_learnt_on_lie_within_and_no_bound_is_below_zero(volumes):
    learnt = learn_intervals({"a": volumes}, offset_ml=0.01)
    inside = 0
    for predicted, true in volumes:
        low, high = learnt.interval("a", predicted)
        assert 0 <= low <= high < math.inf
        inside += low * (1 - 1e-9) - 1e-9 <= true <= high * (1 + 1e-9) + 1e-9
    assert inside >= math.floor(LEVEL * len(volumes))


@law
@given(volumes=VOLUMES, factor=st.sampled_from([0.001, 0.1, 8.0]))
def test_units_do_not_matter(volumes, factor):
    scaled = [(a * factor, b * factor) for a, b in volumes]
    here = learn_intervals({"a": volumes}, offset_ml=0.01).interval("a", 7.0)
    there = learn_intervals({"a": scaled}, offset_ml=0.01 * factor)
    expected = [bound * factor for bound in here]
    assert there.interval("a", 7.0 * factor) == pytest.approx(expected, abs=1e-6)


def test_nothing_found_has_an_interval_too():
    pairs = [(0.0, 0.0)] * 15 + [(0.0, 2.0), (1.0, 0.0), (3.0, 3.1), (2.0, 2.2)]
    learnt = learn_intervals({"lesion": pairs}, offset_ml=0.001)
    low, high = learnt.interval("lesion", 0.0)
    assert (low, high) == pytest.approx((0, 2.0), abs=1e-9)
    assert np.isfinite(log_ratios(pairs, 0.001)).all()


def test_too_few_cases_give_none():
    few = [(1.0, 1.1)] * 8
    enough = [(1.0, 1.1)] * 9
    assert learn_intervals({"a": few}, offset_ml=0.01) is None
    some = learn_intervals({"a": few, "b": enough}, offset_ml=0.01)
    assert some.interval("a", 1.0) is None
    assert some.interval("b", 1.0) is not None
    assert some.interval("never heard of", 1.0) is None
    other = learn_intervals({"a": enough, "b": enough}, offset_ml=0.01)
    assert joint_interval([some, other], "a", 1.0) is None


def test_each_case_is_tested_by_the_cases_of_other_groups():
    ratios = {f"c{i}": 0.01 * i for i in range(20)} | {"odd": 5.0}
    groups = {name: str(i % 2) for i, name in enumerate(ratios)}
    held = dict(held_by_others(ratios, groups))
    assert set(held) == set(ratios)
    assert not held["odd"]
    assert sum(held.values()) >= 18
    assert not dict(held_by_others(ratios, dict.fromkeys(ratios, "0")))


@pytest.mark.parametrize(
    "change",
    [
        {"low": 1.0, "high": 0.5},
        {"low": -math.inf},
        {"high": 1e308},
        {"cases": 0},
    ],
)
def test_bands_that_cannot_be_are_refused(change):
    with pytest.raises(ValidationError):
        VolumeBand.model_validate({"low": -0.5, "high": 0.5, "cases": 9, **change})


def test_it_survives_being_written():
    learnt = learn_intervals({"a": [(1.0, 1.3)] * 30, "b": [(1, 1)] * 3}, offset_ml=1)
    assert VolumeIntervals.model_validate_json(learnt.model_dump_json()) == learnt
