"""Detection scores against scikit-learn in picai_eval's convention, and by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import label
from sklearn.metrics import precision_recall_curve, roc_auc_score

from trivox.evaluation.metrics.detection.scores import (
    OVERLAP,
    RATES,
    Pooled,
    detection_scores,
    froc_curve,
    match_case,
    measure_detections,
)

CUBE = np.ones((3, 3, 3))
LIKELIHOODS = st.lists(st.integers(1, 9).map(lambda n: n / 10), max_size=4)


def case(lesions, hits=(), false=(), second=()):
    candidates = [*hits, *false, *second]
    return {
        "likelihood": max(candidates, default=0.0),
        "lesions": lesions,
        "hits": list(hits),
        "false": list(false),
        "second": list(second),
    }


@st.composite
def cases(draw):
    """Some cases, one of them with a lesion at least."""
    rows = [case(1, hits=draw(LIKELIHOODS)[:1])]
    for _ in range(draw(st.integers(1, 5))):
        hits = draw(LIKELIHOODS)
        lesions = len(hits) + draw(st.integers(0, 2))
        rows.append(case(lesions, hits, draw(LIKELIHOODS)))
    return {str(number): row for number, row in enumerate(rows)}


def listed(rows):
    """Whether it is a lesion and its likelihood, as picai_eval lists them: 0 for missed
    lesions."""
    pairs = []
    for row in rows.values():
        missed = row["lesions"] - len(row["hits"])
        pairs += [(1, score) for score in row["hits"]] + [(1, 0.0)] * missed
        pairs += [(0, score) for score in row["false"]]
    return tuple(np.array(side) for side in zip(*pairs, strict=True))


def average_precision(rows):
    """Of picai_eval: precision is 0 at the likelihood of missed lesions."""
    precision, recall, thresholds = precision_recall_curve(*listed(rows))
    precision[:-1][thresholds == 0] = 0
    return -np.sum(np.diff(recall) * precision[:-1])


@settings(max_examples=40)
@given(cases())
def test_average_precision_is_that_of_picai_eval(rows):
    summary = measure_detections(rows, resamples=20)
    assert summary["ap"]["value"] == pytest.approx(average_precision(rows), abs=1e-12)


@settings(max_examples=40)
@given(cases())
def test_sensitivity_is_the_best_of_all_thresholds_with_so_few_false_positives(rows):
    truth, score = listed(rows)
    summary = measure_detections(rows, resamples=20)
    for rate in RATES:
        best = 0.0
        for threshold in {*score.tolist()} - {0.0}:
            taken = score >= threshold
            if (taken & (truth == 0)).sum() <= rate * len(rows):
                best = max(best, (taken & (truth == 1)).sum() / truth.sum())
        assert summary["sensitivity"][f"{rate:g}"]["value"] == pytest.approx(best)


@settings(max_examples=40)
@given(cases())
def test_the_area_is_that_of_the_largest_likelihoods(rows):
    rows["healthy"] = case(0, false=[0.5])
    truth = [row["lesions"] > 0 for row in rows.values()]
    score = [row["likelihood"] for row in rows.values()]
    area = measure_detections(rows, resamples=20)["auroc"]
    assert area["value"] == pytest.approx(roc_auc_score(truth, score))
    low, high = area["ci95"]
    assert 0 <= low <= area["value"] + 1e-9
    assert area["value"] - 1e-9 <= high <= 1


@settings(max_examples=40)
@given(cases(), st.integers(0, 99))
def test_a_case_that_counts_twice_is_as_two_alike(rows, seed):
    weights = np.random.default_rng(seed).integers(0, 3, len(rows))
    weights[0] += 1
    copies = {}
    for count, (name, row) in zip(weights, rows.items(), strict=True):
        copies |= {f"{name} {copy}": row for copy in range(count)}
    counted = detection_scores(Pooled.of(rows), weights[None].astype(float))
    plain = detection_scores(Pooled.of(copies), np.ones((1, len(copies))))
    for name, value in plain.items():
        assert counted[name] == pytest.approx(value), name


@settings(max_examples=40)
@given(cases())
def test_the_curve_ascends_to_all_that_was_found(rows):
    curve = froc_curve(Pooled.of(rows))
    found = sum(len(row["hits"]) for row in rows.values())
    lesions = sum(row["lesions"] for row in rows.values())
    if found:
        assert curve["sensitivity"][-1] == pytest.approx(found / lesions)
    assert curve["likelihood"] == sorted(curve["likelihood"], reverse=True)
    for axis in ("sensitivity", "false_positives"):
        assert curve[axis] == sorted(curve[axis])


def test_scores_by_hand():
    rows = {
        "a": case(2, hits=[0.9], false=[0.6]),
        "b": case(1, hits=[0.3], second=[0.2]),
        "c": case(0, false=[0.5]),
        "d": case(0),
    }
    summary = measure_detections(rows)
    # hits at ranks 1 and 4 of 3 lesions
    assert summary["ap"]["value"] == pytest.approx((1 + 2 / 4) / 3)
    assert summary["auroc"]["value"] == 0.75
    assert summary["sensitivity"]["0.125"]["value"] == pytest.approx(1 / 3)
    assert summary["sensitivity"]["0.5"]["value"] == pytest.approx(2 / 3)
    assert (summary["cases"], summary["with_lesion"], summary["lesions"]) == (4, 2, 3)


def test_without_lesions_nothing_is_known_but_false_alarms():
    summary = measure_detections({"a": case(0, false=[0.4]), "b": case(0)})
    assert summary["ap"]["value"] is summary["auroc"]["value"] is None
    assert summary["sensitivity"]["1"] == {"value": None, "ci95": None, "method": None}
    assert measure_detections({"a": case(0)})["ap"]["value"] is None
    assert measure_detections({"a": case(1)})["ap"]["value"] == 0


def painted(*boxes, shape=(8, 20, 20)):
    array = np.zeros(shape, np.float32)
    for box, value in boxes:
        array[tuple(slice(*side) for side in box)] = value
    return array


def cube(z, y, x, size=4):
    return ((z, z + size), (y, y + size), (x, x + size))


def test_hits_need_an_overlap_and_more_candidates_on_a_lesion_count_neither_way():
    lesions = painted((cube(0, 0, 0), 1), (cube(0, 10, 10, 8), 1)) > 0
    detections = painted(
        (cube(0, 0, 0), 0.9),
        (((0, 4), (10, 14), (10, 18)), 0.7),  # 128 of 512 voxels
        (((5, 8), (15, 18), (10, 18)), 0.25),  # 72 of the same
        (cube(0, 0, 12), 0.5),
    )
    assert match_case(detections, lesions) == case(
        2, [np.float32(0.9), np.float32(0.7)], [0.5], [0.25]
    )
    assert match_case(detections * 0, lesions) == case(2)
    assert match_case(detections, lesions & False)["hits"] == []


def test_as_many_lesions_as_can_be_are_hit():
    """The larger overlap alone would leave the second lesion without candidate."""
    lesions = painted((((0, 2), (0, 4), (0, 6)), 1), (((0, 2), (0, 4), (8, 14)), 1)) > 0
    wide = painted((((0, 2), (0, 4), (2, 14)), 0.5))
    narrow = painted((((4, 6), (0, 4), (0, 6)), 0.9))
    lesions |= painted((((4, 6), (0, 4), (0, 6)), 1)) > 0
    matched = match_case(wide + narrow, lesions)
    assert matched["hits"] == [0.5, np.float32(0.9)]
    assert matched["false"] == matched["second"] == []


def overlap(first, second):
    return (first & second).sum() / (first | second).sum()


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_matches_are_lawful(seed):
    """Every candidate is a hit, false or second; hits are no more than lesions."""
    rng = np.random.default_rng(seed)
    lesions = np.zeros((6, 16, 16), bool)
    detections = np.zeros(lesions.shape, np.float32)
    for target in (lesions, detections):
        for _ in range(4):
            z, y, x = (int(rng.integers(0, side - 3)) for side in lesions.shape)
            inside = target[z : z + 3, y : y + 3, x : x + 3]
            inside[...] = True if target is lesions else 0.5
    matched = match_case(detections, lesions)
    numbers, count = label(detections > 0, CUBE)
    expected, there = label(lesions, CUBE)
    near = set()
    for candidate in range(1, count + 1):
        shares = [
            overlap(numbers == candidate, expected == lesion)
            for lesion in range(1, there + 1)
        ]
        if max(shares) >= OVERLAP:
            near.add(candidate)
    assert matched["lesions"] == there
    assert len(matched["hits"]) + len(matched["second"]) == len(near)
    assert len(matched["false"]) == count - len(near)
    assert matched["likelihood"] == detections.max()
    assert bool(matched["hits"]) == bool(near)
