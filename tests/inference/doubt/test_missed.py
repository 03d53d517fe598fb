"""How few voxels are missed: the guarantee, the rule, and what cannot be promised."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trivox.datasets.labels import LabelScheme
from trivox.errors import UsageError
from trivox.inference.doubt.label_voxels import VoxelSample
from trivox.inference.doubt.missed import (
    LEVELS,
    MissedControl,
    MissedThresholds,
    chances_of,
    learn_missed,
    missed_by_others,
    missed_share,
    sensitive,
    threshold_of,
)
from trivox.inference.source_grid import _marked

law = settings(max_examples=60, deadline=None, derandomize=True)
SCANS = st.lists(
    st.lists(st.floats(0, 1), min_size=1, max_size=12).map(np.array),
    min_size=9,
    max_size=30,
)
ALPHAS = st.sampled_from([0.05, 0.1, 0.13, 0.2, 0.35, 0.5])


def drawn(rng, cases):
    """Cases of which some are found well, some badly, in voxels that err together."""
    centres = rng.normal(1.5, 2, cases)
    sizes = rng.integers(1, 40, cases)
    return [
        1 / (1 + np.exp(-rng.normal(centre, 1, size)))
        for centre, size in zip(centres, sizes, strict=True)
    ]


@pytest.mark.parametrize(
    ("cases", "level"), [(9, 0.1), (20, 0.1), (40, 0.05), (9, 0.3)]
)
def test_no_more_is_missed_of_new_cases_than_is_promised(cases, level):
    rng = np.random.default_rng(cases)
    missed = []
    for _ in range(1200):
        *known, new = drawn(rng, cases + 1)
        missed.append(missed_share(new, threshold_of(known, level)))
    error = np.std(missed) / len(missed) ** 0.5
    assert np.mean(missed) <= level + 3 * error
    # conformal risk control is not wasteful: below by 2 B / (n + 1) at most, were the
    # share continuous; whole voxels of small structures cost a little more
    assert np.mean(missed) >= level - 2 / (cases + 1) - 3 * error - 0.02


@law
@given(cases=SCANS, level=ALPHAS)
def test_the_threshold_is_the_largest_that_the_rule_allows(cases, level):
    n = len(cases)
    threshold = threshold_of(cases, level)
    if (n + 1) * level < 1 - 1e-9:
        assert threshold is None
        return

    def bound(value):
        return (sum(missed_share(case, value) for case in cases) + 1) / (n + 1)

    assert bound(threshold) <= level + 1e-9
    above = np.nextafter(threshold, 2)
    assert threshold == 1 or bound(above) > level - 1e-9


@law
@given(cases=SCANS)
def test_whoever_may_miss_more_gets_a_higher_threshold(cases):
    known = learn_missed({"a": cases}).targets["a"].thresholds
    values = [value for value in known if value is not None]
    assert len(known) == LEVELS
    assert values == sorted(values)
    assert all(value is None for value in known[: LEVELS - len(values)])


def test_few_cases_promise_nothing():
    few = [np.array([0.5])] * 8
    assert threshold_of(few, 0.5) is None
    assert learn_missed({"a": few, "b": []}) is None
    nine = learn_missed({"a": few + few, "b": few})
    assert set(nine.targets) == {"a"}


def test_others_are_asked():
    cases = {str(number): np.array([number / 20]) for number in range(1, 19)}
    groups = {name: str(int(name) % 2) for name in cases}
    missed = list(missed_by_others(cases, groups, 0.2))
    assert len(missed) == 18
    # nine others allow one of them to be missed: the second smallest is the threshold
    assert sum(missed) == 1 + 2
    assert list(missed_by_others(cases, groups, 0.05)) == []


def asked(cases, level, targets=("a",), **other):
    control = learn_missed({"a": [np.array([0.5])] * cases})
    return sensitive([control], level, targets, **other)


def test_what_cannot_be_promised_is_said_in_one_line():
    assert asked(9, 0.1).thresholds == {"a": 0.5}
    assert asked(30, 0.1, ("a", "b")).thresholds == {"a": 0.5, "b": None}
    with pytest.raises(UsageError, match=r"takes 19 .* there were 9; ask for 0\.1 or"):
        asked(9, 0.05)
    with pytest.raises(UsageError, match=r"there were 0$"):
        asked(9, 0.1, ("b",))
    for level in (0, 0.009, 0.51, -1, float("nan")):
        with pytest.raises(UsageError, match=r"share from 0\.01 to 0\.5"):
            asked(9, level)
    with pytest.raises(UsageError, match="needs one model at scale 1"):
        asked(9, 0.1, scales=(0.9,))
    with pytest.raises(UsageError, match="needs one model at scale 1"):
        sensitive([None, None], 0.1, ["a"])
    with pytest.raises(UsageError, match="knows no thresholds"):
        sensitive([None], 0.1, ["a"])


def test_a_level_between_two_steps_is_the_stricter_one():
    assert asked(40, 0.129).max_missed == pytest.approx(0.12)
    assert asked(40, 0.29).max_missed == pytest.approx(0.29)


def test_thresholds_of_a_file_are_checked():
    with pytest.raises(ValidationError):
        MissedThresholds(cases=9, thresholds=(0.5,) * (LEVELS - 1))
    with pytest.raises(ValidationError):
        MissedThresholds(cases=9, thresholds=(1.5,) * LEVELS)
    with pytest.raises(ValidationError, match="take 99 cases, not 98"):
        MissedThresholds(cases=98, thresholds=(0.5,) * LEVELS)
    with pytest.raises(ValidationError, match="take 9 cases, not 8"):
        MissedThresholds(cases=8, thresholds=(None,) * 20 + (0.5,) * 30)
    for fallen in ((0.5, *[0.4] * 49), (0.5, None, *[0.5] * 48)):
        with pytest.raises(ValidationError, match="fall where more may be missed"):
            MissedThresholds(cases=99, thresholds=fallen)
    MissedThresholds(cases=99, thresholds=(0.5,) * LEVELS)
    control = learn_missed({"a": [np.array([0.1, 0.7])] * 12})
    assert MissedControl.model_validate_json(control.model_dump_json()) == control


def test_probabilities_are_of_the_voxels_of_each_target():
    logits = torch.zeros(3, 4)
    logits[0, 1] = 2
    logits[1, 2] = 4
    sample = VoxelSample(logits, None, VoxelSample(logits, torch.tensor([1, 2, 1])))
    chances = chances_of(sample, LabelScheme(labels={"a": 7, "b": 300, "c": 8}), 2.0)
    assert set(chances) == {"a", "c"}
    sure = np.exp([1.0, 0, 0, 0])
    assert chances["a"][0] == pytest.approx(sure[0] / sure.sum())
    assert chances["a"][1] == pytest.approx(1 / 4)
    assert chances["c"] == pytest.approx(np.exp(2) / (3 + np.exp(2)))
    assert chances_of(VoxelSample(logits, None), LabelScheme(labels={"a": 1}), 1) == {}


def test_a_region_takes_voxels_of_its_labels_as_they_are_spread():
    """Of each label as many were drawn at most; of the union the first are even."""
    scheme = LabelScheme(
        labels={"a": 1, "b": 2},
        regions={"whole": (1, 2), "core": (2,)},
        region_order=(1, 2),
    )
    reference = torch.tensor([1, 2, 1, 1, 2, 1])
    logits = torch.arange(12.0).reshape(6, 2) - 6
    sample = VoxelSample(logits, None, VoxelSample(logits, reference))
    chances = chances_of(sample, scheme, 1.0)
    assert chances["whole"] == pytest.approx(logits[:4, 0].sigmoid().numpy())
    assert chances["core"] == pytest.approx(logits[[1, 4], 1].sigmoid().numpy())


@pytest.mark.parametrize("exclusive", [True, False])
def test_marked_is_what_is_labelled_or_as_probable_as_asked(exclusive):
    """A target without a threshold is marked where it is labelled."""
    named = {"a": 1, "b": 2}
    scheme = LabelScheme(labels=named)
    first = 1
    if not exclusive:
        regions = {name: (value,) for name, value in named.items()}
        scheme = LabelScheme(labels=named, regions=regions, region_order=(1, 2))
        first = 0
    chance = torch.zeros(first + 2, 1, 1, 4)
    chance[first, 0, 0] = torch.tensor([0.1, 0.25, 0.2, 0.3])
    chance[first + 1] = 1
    decision = SimpleNamespace(labels=np.array([[[1, 0, 2, 0]]]))
    poll = SimpleNamespace(probabilities=chance)
    asked = SimpleNamespace(thresholds={"a": 0.25, "b": None})
    marked = _marked(decision, poll, scheme, asked)
    assert marked[:, 0, 0].tolist() == [[1, 1, 0, 1], [0, 0, 1, 0]]
