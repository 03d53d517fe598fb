"""Answers to cases, drawn for tests."""

import numpy as np

from trivox.evaluation.metrics.classification import ClassPredictions

SUBTYPES = ("subtype0", "subtype1", "subtype2")


def drawn_predictions(
    counts,
    *,
    sharpness=1.5,
    seed=0,
    classes=None,
    unknown=0,
):
    """Cases with `counts[k]` of class k, answered better the larger the sharpness; then
    `unknown` without a class.
    """
    rng = np.random.default_rng(seed)
    truth = rng.permutation(in_order(counts))
    known = len(truth)
    logits = rng.normal(size=(known + unknown, len(counts)))
    logits[range(known), truth] += sharpness
    weights = np.exp(logits)
    total = weights.sum(axis=1, keepdims=True)
    without_class = np.full(unknown, -1)
    truth = np.concatenate([truth, without_class])
    if classes is None:
        classes = [f"class{index}" for index, _ in enumerate(counts)]
    return ClassPredictions(
        names_of(truth),
        truth,
        weights / total,
        tuple(classes),
    )


def constant_predictions(counts, chance):
    """The same answer to every case."""
    truth = in_order(counts)
    chances = np.tile(chance, (len(truth), 1))
    return ClassPredictions(
        names_of(truth),
        truth,
        chances,
        SUBTYPES[: len(counts)],
    )


def in_order(counts):
    """Class of each case, `counts[k]` of class k."""
    return np.repeat(range(len(counts)), counts)


def names_of(truth):
    """`quiz_000`, `quiz_001`..."""
    return tuple(f"quiz_{index:03d}" for index, _ in enumerate(truth))
