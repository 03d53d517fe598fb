import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from class_predictions import SUBTYPES, constant_predictions, drawn_predictions
from trivox.errors import DataError
from trivox.evaluation.metrics.calibration import expected_calibration_error, top_label
from trivox.evaluation.metrics.classification import (
    BY_CLASS,
    SCORES,
    ClassPredictions,
    ClassScores,
    majority_answer,
    measure_classes,
    weighted_scores,
)

NOTHING = {"value": None, "ci95": None, "method": None}
few = settings(max_examples=12, deadline=None, derandomize=True)
counted = st.lists(st.integers(0, 9), min_size=2, max_size=5).filter(
    lambda counts: sum(counts) > 1
)


def by_sklearn(truth, chance):
    """Every score of scikit-learn; AUC is None unless all classes are there."""
    k = chance.shape[1]
    labels = np.arange(k)
    answer = chance.argmax(axis=1)
    present = np.bincount(truth, minlength=k) > 0
    alike = {"labels": labels, "zero_division": 0}
    unknown = {"labels": labels, "average": None, "zero_division": np.nan}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # answers of classes that have no case
        scores = {
            "macro_f1": sk.f1_score(truth, answer, average="macro", **alike),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, answer),
            "accuracy": sk.accuracy_score(truth, answer),
            "mcc": sk.matthews_corrcoef(truth, answer),
            "brier": ((chance - np.eye(k)[truth]) ** 2).sum(axis=1).mean(),
            "log_loss": sk.log_loss(truth, chance, labels=labels),
            "recall": sk.recall_score(truth, answer, **unknown),
            "precision": sk.precision_score(truth, answer, **unknown),
            "confusion": sk.confusion_matrix(truth, answer, labels=labels),
            "ece": expected_calibration_error(*top_label(chance, truth)),
            "auc": np.nan,
        }
        if present.all():
            # The very same numbers: rounding once more would break ties.
            score = chance[:, 1] if k == 2 else chance
            scores["auc"] = sk.roc_auc_score(
                truth, score, multi_class="ovr", average="macro", labels=labels
            )
    return scores


def number(score):
    """The value of a score, NaN where it is not known."""
    return np.nan if score["value"] is None else score["value"]


@few
@given(counts=counted, seed=st.integers(0, 10**6), digits=st.sampled_from([1, 12]))
def test_every_score_is_that_of_scikit_learn(counts, seed, digits):
    """One digit makes ties."""
    drawn = drawn_predictions(counts, seed=seed)
    chance = np.maximum(drawn.probabilities.round(digits), 1e-6)
    chance /= chance.sum(axis=1, keepdims=True)
    known = ClassPredictions(drawn.names, drawn.truth, chance, drawn.classes)
    scores = measure_classes(known, seed=0, resamples=10)
    expected = by_sklearn(known.truth, chance)
    for name in SCORES:
        close = pytest.approx(expected[name], abs=1e-12, nan_ok=True)
        assert number(scores[name]) == close, name
    for name in BY_CLASS:
        values = [number(score) for score in scores[name].values()]
        assert values == pytest.approx(expected[name], nan_ok=True)
    assert scores["confusion"] == expected["confusion"].tolist()
    assert list(scores["support"].values()) == counts


@few
@given(counts=counted, seed=st.integers(0, 10**6))
def test_a_weight_is_how_often_a_case_counts(counts, seed):
    """Each row of weights gives what the repeated cases give: so resamples are scored
    as scikit-learn scores them.
    """
    known = drawn_predictions(counts, seed=seed)
    times = np.random.default_rng(seed).integers(0, 4, (2, len(known.names)))
    times[:, 0] += 1
    scores = weighted_scores(known, times.astype(float))
    for row, repeats in enumerate(times):
        truth = np.repeat(known.truth, repeats)
        chance = np.repeat(known.probabilities, repeats, axis=0)
        for name, value in by_sklearn(truth, chance).items():
            close = pytest.approx(value, abs=1e-12, nan_ok=True)
            assert scores[name][row] == close, name


def test_the_majority_answer_of_nine_fifteen_twelve_scores_a_macro_f1_of_0_196():
    majority = majority_answer(constant_predictions((9, 15, 12), [1, 0, 0]))
    scores = measure_classes(majority, seed=0)
    assert scores["macro_f1"]["value"] == pytest.approx(0.196, abs=0.001)
    assert scores["balanced_accuracy"]["value"] == pytest.approx(1 / 3)
    assert (scores["mcc"]["value"], scores["auc"]["value"]) == (0, 0.5)
    assert scores["recall"]["subtype1"]["value"] == 1
    assert scores["precision"]["subtype0"] == NOTHING
    assert scores["confusion"] == [[0, 9, 0], [0, 15, 0], [0, 12, 0]]


def test_the_majority_answer_knows_the_shares_of_the_training_cases_alone():
    cases = constant_predictions((9, 15, 12), [1, 0, 0])
    row = majority_answer(cases, np.array([2, 2, 2, 1, -1]))
    assert row.probabilities.tolist() == [[0, 0.25, 0.75]] * 36
    assert set(row.answers) == {2}
    with pytest.raises(DataError, match="no majority"):
        majority_answer(cases, np.array([-1]))


def test_a_perfect_answer():
    scores = measure_classes(one_hot((4, 5)), seed=0)
    assert {name: scores[name]["value"] for name in SCORES} == {
        "macro_f1": 1,
        "balanced_accuracy": 1,
        "accuracy": 1,
        "mcc": 1,
        "auc": 1,
        "ece": 0,
        "brier": 0,
        "log_loss": 0,
    }
    for name in ("accuracy", "macro_f1", "auc"):
        low, high = scores[name]["ci95"]
        assert (low, high) == pytest.approx((9 / (9 + 1.96**2), 1), abs=1e-3)
        assert scores[name]["method"] == "Wilson"
    assert scores["ece"]["ci95"] is None


def one_hot(counts):
    truth = np.repeat(np.arange(len(counts)), counts)
    return ClassPredictions(
        tuple(map(str, range(len(truth)))),
        truth,
        np.eye(len(counts))[truth],
        SUBTYPES[: len(counts)],
    )


def test_a_class_without_cases_counts_in_macro_f1_and_leaves_auc_unknown():
    scores = measure_classes(one_hot((4, 5, 0)), seed=0)
    assert scores["macro_f1"]["value"] == pytest.approx(2 / 3)
    assert scores["balanced_accuracy"]["value"] == 1
    assert scores["auc"] == NOTHING
    assert scores["recall"]["subtype2"]["value"] is None


def test_cases_without_a_known_class_do_not_count():
    some = drawn_predictions((5, 6), unknown=7)
    known = some.truth >= 0
    alone = ClassPredictions(
        some.names[: known.sum()],
        some.truth[known],
        some.probabilities[known],
        some.classes,
    )
    assert measure_classes(some, seed=3) == measure_classes(alone, seed=3)
    unknown = ClassPredictions(
        ("a",), np.array([-1]), np.array([[0.5, 0.5]]), ("x", "y")
    )
    with pytest.raises(DataError, match="none of 1 cases"):
        measure_classes(unknown, seed=0)


def test_errors_are_those_of_a_bootstrap_done_case_by_case():
    """scipy resamples otherwise: agreement to within the noise of 2000 resamples."""
    from scipy.stats import bootstrap, t

    known = drawn_predictions((15, 25, 20), seed=4)
    scores = measure_classes(known, seed=0)
    labels = np.arange(3)

    def macro_f1(truth, answer):
        return sk.f1_score(
            truth, answer, labels=labels, average="macro", zero_division=0
        )

    error = bootstrap(
        (known.truth, known.answers),
        macro_f1,
        paired=True,
        vectorized=False,
        n_resamples=200,
        method="percentile",
        rng=np.random.default_rng(1),
    ).standard_error
    value = scores["macro_f1"]["value"]
    half = t.ppf(0.975, 59) * error / (value * (1 - value))
    centre = np.log(value / (1 - value))
    expected = [1 / (1 + np.exp(-centre - side * half)) for side in (-1, 1)]
    assert scores["macro_f1"]["ci95"] == pytest.approx(expected, abs=0.035)


def test_equal_seeds_give_equal_intervals_and_several_portions_the_same_as_one():
    known = drawn_predictions((9, 15, 12))
    first, again, other = (
        measure_classes(known, seed=seed)["macro_f1"]["ci95"] for seed in (1, 1, 2)
    )
    assert first == again != other
    large = drawn_predictions((600, 600), seed=1)  # drawn 1666 resamples at a time
    draws = ClassScores.of(large, seed=0).draws
    assert {values.shape[0] for values in draws.values()} == {2000}


def test_one_case_has_no_interval():
    one = ClassPredictions(("a",), np.array([1]), np.array([[0.2, 0.8]]), ("x", "y"))
    scores = measure_classes(one, seed=0)
    assert scores["accuracy"] == {**NOTHING, "value": 1}


def test_paired_difference_is_narrower_than_both_intervals_and_zero_against_itself():
    good = drawn_predictions((30, 30, 30), sharpness=2, seed=5)
    worse = ClassPredictions(
        good.names, good.truth, good.probabilities.copy(), good.classes
    )
    differing = worse.probabilities[:4]
    differing[:] = np.roll(differing, 1, axis=1)
    scores = ClassScores.of(good, seed=0)
    difference = scores.difference(ClassScores.of(worse, seed=0))["macro_f1"]
    score = measure_classes(good, seed=0)["macro_f1"]
    other = measure_classes(worse, seed=0)["macro_f1"]
    assert difference["value"] == pytest.approx(score["value"] - other["value"])
    widths = np.ptp(score["ci95"]), np.ptp(other["ci95"])
    assert np.ptp(difference["ci95"]) < min(widths)
    backwards = ClassScores.of(worse, seed=0).difference(scores)["macro_f1"]
    assert difference["p_false_claim"] + backwards["p_false_claim"] == pytest.approx(1)
    assert difference["p_false_claim"] < 0.5 < backwards["p_false_claim"]
    assert scores.difference(scores)["auc"] == {
        "value": 0,
        "ci95": None,
        "method": None,
        "p_false_claim": 0.5,
    }


def test_a_comparison_needs_the_same_cases():
    first = ClassScores.of(drawn_predictions((5, 5)), seed=0)
    second = ClassScores.of(drawn_predictions((5, 5), seed=1), seed=0)
    with pytest.raises(DataError, match="same cases"):
        first.difference(second)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ("x",)}, "two or more"),
        ({"classes": ("x", "x")}, "different names"),
        ({"names": ("a", "a")}, "'a' is in the predictions twice"),
        ({"truth": np.array([0])}, "do not fit 2 cases"),
        ({"truth": np.array([0, 2])}, r"-1\.\.1"),
        ({"probabilities": np.array([[0.5, 0.5], [0.9, 0.9]])}, "b: 0.9, 0.9"),
        ({"probabilities": np.array([[1.5, -0.5], [0.5, 0.5]])}, "a: 1.5, -0.5"),
        ({"probabilities": np.array([[np.nan, 1], [0.5, 0.5]])}, "a: nan, 1"),
    ],
)
def test_what_are_no_predictions_is_refused(changes, message):
    right = {
        "names": ("a", "b"),
        "truth": np.array([0, -1]),
        "probabilities": np.full((2, 2), 0.5),
        "classes": ("x", "y"),
    }
    ClassPredictions(**right)
    with pytest.raises(DataError, match=message):
        ClassPredictions(**{**right, **changes})
