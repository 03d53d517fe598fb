"""The class monitor: figures as scikit-learn has them, and one warning for each thing
that goes wrong for long.
"""

import itertools
import warnings as python_warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sklearn.metrics import balanced_accuracy_score, f1_score

from trivox.config.options import ClassificationOptions
from trivox.learning.case_classifier import monitor as class_monitor
from trivox.learning.case_classifier.monitor import ClassMonitor

NAMES = ("benign", "border/line", "malignant")
GOOD = [[6, 2, 1], [2, 12, 1], [1, 2, 9]]
COLLAPSED = [[0, 9, 0], [0, 15, 0], [0, 12, 0]]
NEVER_LAST = [[6, 3, 0], [3, 12, 0], [6, 6, 0]]
LEANING = [[1, 8, 0], [0, 15, 0], [1, 10, 1]]
ROWS = {"good": GOOD, "collapsed": COLLAPSED, "never": NEVER_LAST, "leaning": LEANING}


def figures_of(monitor, confusion, *, means=(0.0, 0.0, 0.0), spread=1.0):
    """Figures of an epoch with that confusion; mean and standard deviation of the
    logits as given.
    """
    number = int(np.sum(confusion))
    means = np.array(means)
    squares = number * (spread**2 + means**2)
    return monitor.figures(
        np.array(confusion), number * means, number, logit_squares=squares
    )


def history(monitor, *epochs):
    """Warnings of each epoch."""
    return [monitor.warnings(figures_of(monitor, ROWS[name])) for name in epochs]


def texts(found):
    return list(itertools.chain.from_iterable(found))


# -- figures ---------------------------------------------------------------------------
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data(), st.integers(2, 5), st.integers(1, 40))
def test_figures_are_those_of_scikit_learn(data, classes, number):
    labels = st.lists(st.integers(0, classes - 1), min_size=number, max_size=number)
    truth = np.array(data.draw(labels))
    answers = np.array(data.draw(labels))
    logits = np.random.default_rng(number).normal(size=(number, classes))
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (truth, answers), 1)
    names = [f"class {i}" for i in range(classes)]
    figures = ClassMonitor(names).figures(
        confusion, logits.sum(0), number, logit_squares=(logits**2).sum(0)
    )
    f1 = f1_score(
        truth, answers, labels=range(classes), average="macro", zero_division=0
    )
    with python_warnings.catch_warnings():
        python_warnings.simplefilter(
            "ignore"
        )  # scikit-learn tells of answers that are no class of the truth
        balanced = balanced_accuracy_score(truth, answers)
    assert figures["validation_macro_f1"] == pytest.approx(f1)
    assert figures["validation_balanced_accuracy"] == pytest.approx(balanced)
    assert figures["class_logit_spread"] == pytest.approx(np.sqrt(logits.var(0).mean()))
    for index, name in enumerate(names):
        assert figures[f"class_share/{name}"] == pytest.approx(
            np.mean(answers == index)
        )
        assert figures[f"class_cases/{name}"] == pytest.approx(np.mean(truth == index))
        assert figures[f"class_logit/{name}"] == pytest.approx(logits[:, index].mean())
        if (truth == index).any():
            assert figures[f"class_recall/{name}"] == pytest.approx(
                np.mean(answers[truth == index] == index)
            )
        else:
            assert f"class_recall/{name}" not in figures
    assert all(
        isinstance(value, float) and np.isfinite(value) for value in figures.values()
    )


def test_the_majority_answer_scores_what_the_fourth_seed_scored():
    assert figures_of(ClassMonitor(NAMES), COLLAPSED)[
        "validation_macro_f1"
    ] == pytest.approx(0.1961, abs=5e-5)


def test_an_epoch_without_patches_has_no_figures_and_no_warnings():
    monitor = ClassMonitor(NAMES, patience=1)
    assert monitor.figures(np.zeros((3, 3)), np.zeros(3), 0) == {}
    assert monitor.warnings({}) == []


# -- warnings --------------------------------------------------------------------------
def test_a_good_classifier_is_left_alone():
    assert texts(history(ClassMonitor(NAMES, patience=1), *["good"] * 20)) == []


def test_a_collapse_is_told_once_with_the_class_it_fell_to():
    warnings = history(ClassMonitor(NAMES, patience=3), *["collapsed"] * 8)
    assert [len(epoch) for epoch in warnings] == [0, 0, 1, 0, 0, 0, 0, 0]
    (text,) = texts(warnings)
    assert "'border/line', the most frequent class" in text
    assert "collapsed" in text
    assert "classification.classifier=lda" in text


def test_a_collapse_to_a_rare_class_is_not_called_the_most_frequent():
    monitor = ClassMonitor(NAMES, patience=1)
    (text,) = monitor.warnings(figures_of(monitor, np.roll(COLLAPSED, 1, axis=1)))
    assert "'malignant'" in text
    assert "most frequent" not in text


def test_a_warning_comes_again_after_a_recovery_and_only_then():
    bad = "collapsed"
    warnings = history(ClassMonitor(NAMES, patience=2), bad, bad, "good", bad, bad, bad)
    assert [len(epoch) for epoch in warnings] == [0, 1, 0, 0, 1, 0]


def test_a_short_lapse_is_not_told():
    assert (
        texts(
            history(
                ClassMonitor(NAMES, patience=3), *["collapsed", "collapsed", "good"] * 4
            )
        )
        == []
    )


def test_a_class_that_is_never_answered_is_named():
    (text,) = texts(history(ClassMonitor(NAMES, patience=2), *["never"] * 6))
    assert "'malignant' was never answered in 2 epochs" in text
    assert "33%" in text
    assert "classification.class_weights=effective_number" in text


def test_answers_far_from_the_shares_of_cases_are_told():
    (text,) = texts(history(ClassMonitor(NAMES, patience=2), *["leaning"] * 4))
    assert "'border/line' gets 92% of the answers, but 42%" in text
    assert "classification.imbalance=logit_adjustment" in text


def test_logits_that_do_not_depend_on_the_patch_are_told():
    monitor = ClassMonitor(NAMES, patience=1)
    calm = figures_of(monitor, GOOD, means=(0.0, 1.5, 0.2), spread=1.0)
    biased = figures_of(monitor, GOOD, means=(0.0, 1.5, 0.2), spread=0.2)
    assert monitor.warnings(calm) == []
    (text,) = monitor.warnings(biased)
    assert "mean logit of 'border/line' lies 1.5 above that of 'benign'" in text
    assert "classification.label_smoothing" in text


def test_without_squares_logits_are_not_judged():
    monitor = ClassMonitor(NAMES, patience=1)
    figures = monitor.figures(np.array(GOOD), 36 * np.array([0, 1000.0, 0]), 36)
    assert "class_logit_spread" not in figures
    assert monitor.warnings(figures) == []


def test_classes_without_patches_are_not_missed():
    monitor = ClassMonitor(NAMES, patience=1)
    assert (
        monitor.warnings(figures_of(monitor, [[5, 1, 0], [2, 4, 0], [0, 0, 0]])) == []
    )
    assert (
        monitor.warnings(figures_of(monitor, [[0, 0, 0], [0, 8, 0], [0, 0, 0]])) == []
    )  # nothing else to answer


def test_what_to_try_names_settings_that_exist():
    """Every `classification.NAME[=VALUE]` in the advice is a setting, and takes the
    value.
    """
    options: type[BaseModel] = ClassificationOptions
    advice = [
        class_monitor.COLLAPSE,
        class_monitor.NEVER,
        class_monitor.LEANING,
        class_monitor.LOGITS,
    ]
    words = " ".join(advice).split()
    words = [word.strip(",.;()") for word in words if "classification." in word]
    assert len(words) >= 10
    for word in words:
        name, _, value = word.removeprefix("classification.").partition("=")
        assert name in options.model_fields
        if value:
            options.model_validate({name: value})
