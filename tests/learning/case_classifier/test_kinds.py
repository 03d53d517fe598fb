"""The kinds of classifiers, against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from classifier_toys import softmax, toy
from trivox.learning.case_classifier.kinds import (
    fit_lda,
    fit_logreg,
    fit_mlp,
    shrunk_covariance,
)
from trivox.learning.case_classifier.network import logits_of


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), n=st.integers(3, 60), f=st.integers(1, 40))
def test_the_shrunk_covariance_is_that_of_ledoit_and_wolf(seed, n, f):
    rows = np.random.default_rng(seed).standard_normal((n, f)) * np.linspace(0.2, 3, f)
    np.testing.assert_allclose(
        shrunk_covariance(rows), covariance_of_the_paper(rows), atol=1e-10
    )


def covariance_of_the_paper(rows):
    n, f = rows.shape
    sample = rows.T @ rows / n
    mean = np.trace(sample) / f
    squares = (sample**2).sum()
    distance = squares - f * mean**2
    error = (((rows**2).sum(1) ** 2).mean() - squares) / n
    share = min(error, distance) / distance if distance > 0 else 0.0
    return (1 - share) * sample + share * mean * np.eye(f)


def test_rows_without_any_spread_have_no_covariance():
    np.testing.assert_array_equal(shrunk_covariance(np.zeros((4, 3))), np.zeros((3, 3)))
    np.testing.assert_array_equal(shrunk_covariance(np.ones((4, 1))), [[1.0]])


@pytest.mark.parametrize("features", [4, 90], ids=["few", "more features than rows"])
def test_lda_is_that_of_scikit_learn_at_the_same_shrinkage(features):
    rows, truth, _ = toy(features=features)
    networks = fit_lda(rows, truth, np.ones(len(truth)), 0, 0)
    means = np.array([rows[truth == k].mean(0) for k in range(3)])
    share = ledoit_wolf_shrinkage(rows - means[truth], assume_centered=True)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=share).fit(rows, truth)
    np.testing.assert_allclose(
        softmax(logits_of(networks, rows)), theirs.predict_proba(rows), atol=1e-6
    )


def test_weights_count_rows_as_often_in_lda(monkeypatch):
    monkeypatch.setattr(
        "trivox.learning.case_classifier.kinds.shrunk_covariance",
        lambda rows: rows.T @ rows / len(rows),
    )
    rows, truth, _ = (
        toy()
    )  # nothing is shrunk: how far depends on how many independent rows there are
    weights = np.random.default_rng(0).integers(1, 4, len(truth)).astype(float)
    often = np.repeat(np.arange(len(truth)), weights.astype(int))
    weighted = logits_of(fit_lda(rows, truth, weights, 0, 0), rows)
    repeated = logits_of(
        fit_lda(rows[often], truth[often], np.ones(len(often)), 0, 0), rows
    )
    np.testing.assert_allclose(softmax(weighted), softmax(repeated), atol=1e-9)


@pytest.mark.parametrize("counts", [(20, 30), (20, 30, 25)])
@pytest.mark.parametrize("features", [5, 120])
def test_logreg_is_that_of_scikit_learn_without_the_rotation(counts, features):
    rows, truth, _ = toy(counts=counts, features=features)
    weights = np.linspace(0.5, 1.5, len(truth))
    value = logits_of(fit_logreg(rows, truth, weights, 0.1, 0), rows)
    theirs = LogisticRegression(C=0.1, tol=1e-8, max_iter=5000).fit(
        rows, truth, sample_weight=weights
    )
    np.testing.assert_allclose(softmax(value), theirs.predict_proba(rows), atol=2e-3)


def test_the_small_network_learns_what_no_plane_divides():
    rows = np.random.default_rng(0).standard_normal((200, 2))
    truth = (rows[:, 0] * rows[:, 1] > 0).astype(int)
    weights = np.ones(200)
    right = {
        name: (
            logits_of(kind(rows, truth, weights, 0.01, 0), rows).argmax(1) == truth
        ).mean()
        for name, kind in (("mlp", fit_mlp), ("lda", fit_lda))
    }
    assert right["mlp"] > 0.85 > 0.7 > right["lda"]
