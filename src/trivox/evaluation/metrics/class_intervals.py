"""95 % intervals of the scores of classes, each by the method that covers best for it;
benchmarks/coverage.py simulates how often they do.

Percentile bootstraps are too narrow where cases are few and answers mostly right (their
interval of 10 right answers of 10 is a point); here the bootstrap gives standard errors
alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trivox.evaluation.metrics.calibration import log_losses, squared_distances
from trivox.evaluation.metrics.class_content import Score
from trivox.evaluation.metrics.intervals import (
    POSITIVE,
    SHARE,
    WILSON,
    Interval,
    Support,
    logit_interval,
    mean_interval,
    t_quantile,
    wilson_interval,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

DELONG = "DeLong, logit"
BOOTSTRAP = "bootstrap error, logit"
PAIRED = "Student-t, paired bootstrap error"
BOUNDED: Mapping[str, Support] = {
    "macro_f1": SHARE,
    "balanced_accuracy": SHARE,
    "mcc": Support(-1.0, 1.0),
}
CONVENTION = (
    "95 %, by the method beside it: proportions (accuracy, recall, precision) by "
    "Wilson; auc from its standard error as DeLong finds it, the others from that of "
    "2000 bootstrap resamples of cases (fixed seed), both symmetric for the logit; "
    "scores at their bound as so many cases of which all are right, by Wilson; brier "
    "and log_loss as means over cases; ece has none, since binning adds to it"
)


class Losses(NamedTuple):
    """What a score is the mean of, and where its values lie."""

    of_case: Callable[[Floats, Integers], NDArray[Any]]
    support: Support


LOSSES = {
    "brier": Losses(squared_distances, Support(0.0, 2.0)),
    "log_loss": Losses(log_losses, POSITIVE),
}
"""Scores that are means over cases."""


def bounded_interval(name: str, value: float, draws: Floats, cases: int) -> Interval:
    """Of a score between two bounds; draws: its values in resamples, NaN left out."""
    interval = logit_interval(value, _error_of(draws), cases, BOUNDED[name])
    return _named(interval, BOOTSTRAP)


def area_interval(value: float, truth: Integers, probabilities: Floats) -> Interval:
    """Of the area under the ROC curve, the mean of those of `positive_classes`."""
    columns = positive_classes(probabilities.shape[1])
    error = area_error(truth, probabilities, columns)
    return _named(logit_interval(value, error, len(truth)), DELONG)


def positive_classes(count: int) -> Sequence[int]:
    """Of so many classes those whose areas under the ROC curve make up the AUC: all; of
    two the second.
    """
    return range(count) if count > 2 else (1,)


def area_error(truth: Integers, probabilities: Floats, columns: Sequence[int]) -> float:
    """Standard error of the mean area of classes against the rest (DeLong, DeLong and
    Clarke-Pearson 1988): of each case, the share of the other side that it is rightly
    above or below.
    """
    influence = np.zeros(len(truth))
    for column in columns:
        positive = truth == column
        score = probabilities[:, column]
        for side, sign in ((positive, 1.0), (~positive, -1.0)):
            won = _share_below(sign * score[side], sign * score[~side])
            influence[side] += _influence(won)
    return float(np.sqrt((influence**2).sum())) / len(columns)


def _influence(won: Floats) -> Floats:
    """What each of `(n,)` cases adds to the error of their mean; one alone as much as
    it can at most.
    """
    mean = won.mean()
    if won.size == 1:
        return np.asarray([(mean * (1 - mean)) ** 0.5])
    return np.asarray((won - mean) / (won.size * (won.size - 1)) ** 0.5)


def _share_below(scores: Floats, others: Floats) -> Floats:
    """Share of others that lie below each score, equal ones counting half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, scores, side="left")
    not_above = np.searchsorted(ordered, scores, side="right")
    return np.asarray((below + not_above) / (2 * len(others)))


def proportion_interval(share: float, cases: float) -> Interval:
    """Of a share of so many cases."""
    return wilson_interval(round(share * cases), cases)


def loss_interval(name: str, truth: Integers, probabilities: Floats) -> Interval | None:
    """Of a score that is a mean over cases."""
    losses = LOSSES[name]
    return mean_interval(
        losses.of_case(probabilities, truth).astype(np.float64), losses.support
    )


def difference_interval(value: float, draws: Floats, cases: int) -> Interval | None:
    """Of a difference of two scores of so many cases; draws: in resamples, NaN left
    out; None where they do not vary.
    """
    error = _error_of(draws)
    if not error:
        return None
    half = t_quantile(cases) * error
    return Interval(value - half, value + half, PAIRED)


def _error_of(draws: Floats) -> float:
    """Standard error of a score, from its values in resamples; 0 where they are equal
    (their rounded standard deviation need not be), or none is finite.
    """
    defined = draws[np.isfinite(draws)]
    if not defined.size or np.ptp(defined) == 0:
        return 0.0
    return float(defined.std())


def scored(value: float, interval: Interval | None) -> Score:
    """A score with its interval; nothing of one that is not defined."""
    if not np.isfinite(value):
        return {"value": None, "ci95": None, "method": None}
    if interval is None:
        return {"value": float(value), "ci95": None, "method": None}
    return {
        "value": float(value),
        "ci95": [interval.low, interval.high],
        "method": interval.method,
    }


def _named(interval: Interval, method: str) -> Interval:
    """With the method by which its error was found, if that was used."""
    return interval if interval.method == WILSON else interval._replace(method=method)
