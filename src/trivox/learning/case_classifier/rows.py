"""Rows that classifiers of cases are fitted on: checked, weighted, dealt into folds,
and the scale of their columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trivox.datasets.splits import deal_folds
from trivox.errors import DataError
from trivox.volumes.volume import Array

Imbalance = Literal["balanced", "none"]


@dataclass(frozen=True, eq=False)
class CaseRows:
    """Training rows: features `(n, f)`, answers `(n,)` 0..k-1 (all present), weights
    (mean 1) and fold of each row.
    """

    features: Array
    answers: Array
    weights: Array
    fold: Array

    def take(self, rows: Array) -> "CaseRows":
        """Only those rows (a mask or indices)."""
        return CaseRows(
            self.features[rows], self.answers[rows], self.weights[rows], self.fold[rows]
        )


def case_rows(
    features: Array,
    classes: Array,
    names: Sequence[str],
    class_names: Sequence[str],
    groups: Sequence[str] | None,
    weights: Array | None,
    imbalance: Imbalance,
    seed: int,
    folds: int,
) -> tuple[CaseRows, Array]:
    """Checked rows, and which classes they are of."""
    features = np.asarray(features, dtype=np.float64)
    classes = np.asarray(classes)
    _check(features, classes, names, class_names)
    present, answers = np.unique(classes, return_inverse=True)
    rows = CaseRows(
        features=features,
        answers=answers,
        weights=_row_weights(answers, weights, imbalance),
        fold=_folds(classes, groups, folds, seed),
    )
    return rows, present


def _folds(
    classes: Array, groups: Sequence[str] | None, folds: int, seed: int
) -> Array:
    """Fold of each row, by the rule of `deal_folds`: groups stay together, classes are
    spread evenly.
    """
    rows = range(len(classes))
    if groups is None:
        groups = [f"row {row}" for row in rows]
    parts = deal_folds(
        [f"{row:08d}" for row in rows],
        patients=[str(group) for group in groups],
        classes=[str(name) for name in classes],
        folds=folds,
        seed=seed,
    )
    fold = np.zeros(len(classes), dtype=np.int64)
    for number, part in enumerate(parts):
        fold[[int(name) for name in part]] = number
    return fold


def _row_weights(answers: Array, weights: Array | None, imbalance: Imbalance) -> Array:
    """Weights `(n,)` of mean 1; balanced: those of each class add up to the same."""
    row_weights = np.ones(len(answers))
    if weights is not None:
        row_weights = np.asarray(weights, dtype=np.float64)
    if imbalance == "balanced":
        of_class = np.bincount(answers, weights=row_weights)
        row_weights = row_weights / of_class[answers]
    return np.asarray(row_weights / row_weights.mean())


def usable_columns(features: Array, columns: Sequence[int]) -> tuple[int, ...]:
    """The columns that are known in some rows and differ between them."""
    usable = []
    for column in columns:
        known = features[np.isfinite(features[:, column]), column]
        if known.size and np.ptp(known) > 1e-9 * np.abs(known).max():
            usable.append(column)
    return tuple(usable)


def telling(x: Array, answers: Array, few: int | None) -> Array:
    """Places of the `few` columns of `x` `(n, f)` that tell the classes best,
    ascending; None: all.

    By the F statistic of a one-way analysis of variance: spread of the classes' means
    over the spread within them. Not scikit-learn's `f_classif`, which differences sums
    of squares: a column that is constant within each class tells them perfectly, and
    often gets an F below 0 there.
    """
    if few is None or few >= x.shape[1]:
        return np.arange(x.shape[1])
    member = np.eye(answers.max() + 1)[answers]
    counts = member.sum(0)
    means = member.T @ x / counts[:, None]
    between = (counts[:, None] * (means - x.mean(0)) ** 2).sum(0)
    within = ((x - means[answers]) ** 2).sum(0)
    order = np.argsort(-between / np.maximum(within, 1e-12), kind="stable")
    return np.sort(order[:few])


def scaling_of(features: Array) -> tuple[Array, Array, Array]:
    """Medians of what is known, and mean and scale after filling in; a column that does
    not vary has scale 1.
    """
    known = np.where(np.isfinite(features), features, np.nan)
    empty = np.isnan(known).all(0)
    fill = np.zeros(features.shape[1])
    fill[~empty] = np.nanmedian(known[:, ~empty], axis=0)
    filled = np.where(np.isnan(known), fill, known)
    mean = filled.mean(0)
    scale = filled.std(0)
    varies = scale > 1e-9 * np.maximum(np.abs(mean), 1e-300)
    return fill, mean, np.where(varies, scale, 1.0)


def _check(
    features: Array, classes: Array, names: Sequence[str], class_names: Sequence[str]
) -> None:
    if features.ndim != 2 or features.shape != (len(classes), len(names)):
        raise DataError(
            f"features {features.shape} do not fit {len(classes)} classes and "
            f"{len(names)} names"
        )
    if len(classes) and (classes.min() < 0 or classes.max() >= len(class_names)):
        raise DataError(
            "a case without a known class cannot train a classifier; leave it out"
        )
    if len(np.unique(classes)) < 2:
        only = class_names[classes[0]] if len(classes) else "none"
        raise DataError(
            f"all {len(classes)} training cases are of one class ({only}); "
            "a classifier needs two or more"
        )
