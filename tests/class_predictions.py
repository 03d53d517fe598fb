"""Answers to cases, drawn for tests."""

import numpy as np

from trivox.evaluation.metrics.classification import ClassPredictions

SUBTYPES = ("subtype0", "subtype1", "subtype2")


def drawn_predictions(counts, *, sharpness=1.5, seed=0, classes=None, unknown=0):
    """Cases with `counts[k]` of class k, answered better the larger the sharpness; then
    `unknown` without a class.
    """
    rng = np.random.default_rng(seed)
    truth = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    logits = rng.normal(size=(len(truth) + unknown, len(counts)))
    logits[np.arange(len(truth)), truth] += sharpness
    chance = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    truth = np.concatenate([truth, np.full(unknown, -1)])
    names = tuple(f"quiz_{i:03d}" for i in range(len(truth)))
    return ClassPredictions(
        names,
        truth,
        chance,
        tuple(classes or (f"class{i}" for i in range(len(counts)))),
    )


def constant_predictions(counts, chance):
    """The same answer to every case."""
    truth = np.repeat(np.arange(len(counts)), counts)
    names = tuple(f"quiz_{i:03d}" for i in range(len(truth)))
    return ClassPredictions(
        names, truth, np.tile(chance, (len(truth), 1)), SUBTYPES[: len(counts)]
    )
