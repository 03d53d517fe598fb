"""How good the classes of cases are: scores of one classifier, their intervals, and
paired differences.

The answer to a case is its most probable class. A score is computed for many weightings
of the cases at once: ones give its value, the counts of how often each case was drawn
give its bootstrap resamples (Efron 1979). Values are those of scikit-learn; sources:
Gorodkin 2004 (MCC of several classes), Hand and Till 2001 (AUC), and `calibration`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trivox.errors import DataError
from trivox.evaluation.metrics.calibration import (
    equal_width_bins,
    log_losses,
    squared_distances,
)
from trivox.evaluation.metrics.claims import false_claim_of_draws
from trivox.evaluation.metrics.class_content import (
    ClassDifference,
    ClassSummary,
    Score,
    ScoreDifference,
)
from trivox.evaluation.metrics.class_intervals import (
    BOUNDED,
    LOSSES,
    area_interval,
    bounded_interval,
    difference_interval,
    loss_interval,
    positive_classes,
    proportion_interval,
    scored,
)
from trivox.evaluation.metrics.class_intervals import CONVENTION as INTERVALS
from trivox.evaluation.metrics.intervals import Interval

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SCORES = (
    "macro_f1",
    "balanced_accuracy",
    "accuracy",
    "mcc",
    "auc",
    "ece",
    "brier",
    "log_loss",
)
BY_CLASS = ("recall", "precision")
COMPARED = ("macro_f1", "auc")
RESAMPLES = 2000

CONVENTION = {
    "answer": "the class with the largest probability",
    "macro_f1": "mean of F1 = 2 TP / (2 TP + FP + FN) over all classes, also those "
    "without cases or never answered (F1 0)",
    "balanced_accuracy": "mean recall of the classes that have cases",
    "mcc": "Matthews correlation coefficient of several classes (Gorodkin 2004); 0 "
    "where all answers are alike",
    "auc": "two classes: area under the ROC curve; more: mean over classes of that of "
    "the class against the rest; null unless every class has cases; ties count half",
    "recall": "share of a class's cases that are answered with it; null without cases",
    "precision": "share of the answers with a class that are right; null where it is "
    "never answered",
    "ece": "mean |accuracy - confidence| over 15 equally wide bins of the largest "
    "probability, weighted by counts",
    "brier": "squared distance of the probabilities to the one-hot class, summed over "
    "classes: 0..2",
    "log_loss": "-ln of the probability of the true class in nats; probabilities below "
    "1e-12 count as that",
    "ci95": INTERVALS,
    "difference": "this model minus the row, over the same resamples of the same "
    "cases; ci95: Student-t with their standard error; p_false_claim: the share of "
    "them in which this model is not better (ties count half); no effect size, since "
    "these scores are no means over cases",
}


@dataclass(frozen=True, eq=False)
class ClassPredictions:
    """What a classifier said about cases.

    names: `(n)`, each once; truth: `(n,)` index into `classes`, -1 where the class is
    not known; probabilities: `(n, k)`, rows sum to 1; classes: `(k)`, two or more.
    Raises `DataError` for anything else.
    """

    names: tuple[str, ...]
    truth: Integers
    probabilities: Floats
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        self._require_names()
        self._require_shapes()
        self._require_values()

    def _require_names(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) < len(self.classes):
            raise DataError(
                f"classes {[*self.classes]}: give two or more different names"
            )
        times = Counter(self.names)
        repeated = [name for name in self.names if times[name] > 1]
        if repeated:
            raise DataError(
                f"case '{repeated[0]}' is in the predictions twice; keep one of them"
            )

    def _require_shapes(self) -> None:
        cases = len(self.names)
        count = len(self.classes)
        if self.truth.shape != (cases,) or self.probabilities.shape != (cases, count):
            raise DataError(
                f"truth {self.truth.shape} and probabilities "
                f"{self.probabilities.shape} do not fit {cases} cases and {count} "
                f"classes; give ({cases},) and ({cases}, {count})"
            )

    def _require_values(self) -> None:
        count = len(self.classes)
        if not ((self.truth >= -1) & (self.truth < count)).all():
            raise DataError(
                f"class indices must lie in -1..{count - 1}; found "
                f"{np.unique(self.truth).tolist()[:8]}"
            )
        positive = (self.probabilities >= 0).all(axis=1)
        near_one = np.abs(self.probabilities.sum(axis=1) - 1) <= 0.02
        wrong = ~(positive & near_one)  # also NaN
        if wrong.any():
            row = int(wrong.argmax())
            shown = ", ".join(f"{value:g}" for value in self.probabilities[row])
            raise DataError(
                f"{self.names[row]}: {shown} are no probabilities; they must not be "
                "negative and sum to 1"
            )

    @cached_property
    def answers(self) -> Integers:
        """Index of the most probable class of each case, `(n,)`; the first of equals."""
        return np.asarray(self.probabilities.argmax(axis=1))

    def known(self) -> "ClassPredictions":
        """The cases whose class is known; raises `DataError` if there are none."""
        inside = self.truth >= 0
        if not inside.any():
            raise DataError(
                f"none of {len(self.names)} cases has a known class; give classes to "
                "measure against"
            )
        return ClassPredictions(
            tuple(self.names[i] for i in np.flatnonzero(inside)),
            self.truth[inside],
            self.probabilities[inside],
            self.classes,
        )


def majority_answer(
    predictions: ClassPredictions, training: Integers | None = None
) -> ClassPredictions:
    """What a classifier says that knows nothing but how frequent the classes are: their
    shares, for every case.

    training: class indices of the cases to count, -1 left out; None: those of
    `predictions` itself.
    """
    counted = predictions.truth if training is None else training
    known = counted[counted >= 0]
    if not known.size:
        raise DataError(
            "no training case has a known class, so there is no majority; give their "
            "class indices"
        )
    counts = np.bincount(known, minlength=len(predictions.classes))
    constant = np.tile(counts / counts.sum(), (len(predictions.names), 1))
    return ClassPredictions(
        predictions.names, predictions.truth, constant, predictions.classes
    )


def measure_classes(
    predictions: ClassPredictions, *, seed: int, resamples: int = RESAMPLES
) -> ClassSummary:
    """All scores with 95 % intervals over the cases whose class is known, in the
    convention that `CONVENTION` states.

    Returns `{score: {"value", "ci95"}}` for `SCORES`, the same by class for recall and
    precision, `support` (cases by class) and `confusion` (`[truth][answer]`). What
    cannot be known is None; so is the interval of a single case. Raises `DataError` if
    no class is known.
    """
    return ClassScores.of(predictions, seed=seed, resamples=resamples).summary()


@dataclass(frozen=True, eq=False)
class ClassScores:
    """Scores of cases whose class is known, `(1, ...)`, and of bootstrap resamples,
    `(r, ...)`; NaN where undefined.
    """

    known: ClassPredictions
    value: Mapping[str, Floats]
    draws: Mapping[str, Floats]

    @classmethod
    def of(
        cls, predictions: ClassPredictions, *, seed: int, resamples: int = RESAMPLES
    ) -> "ClassScores":
        """Measure predictions; equal seeds draw the same of equally many cases."""
        known = predictions.known()
        cases = len(known.names)
        portions = [
            weighted_scores(known, weights) for weights in drawn(cases, resamples, seed)
        ]
        draws: dict[str, Floats] = {}
        for name in (*SCORES, *BY_CLASS):
            draws[name] = np.concatenate([scores[name] for scores in portions])
        return cls(known, weighted_scores(known, np.ones((1, cases))), draws)

    def summary(self) -> ClassSummary:
        """See `measure_classes`."""
        classes = self.known.classes
        confusion = self.value["confusion"][0].astype(int)
        support = confusion.sum(axis=1).tolist()
        summary: dict[str, object] = {name: self._score(name) for name in SCORES}
        for axis, name in enumerate(BY_CLASS):
            summary[name] = self._by_class(name, confusion.sum(axis=1 - axis))
        summary["support"] = dict(zip(classes, support, strict=True))
        summary["confusion"] = confusion.tolist()
        return cast(ClassSummary, summary)

    def difference(self, other: "ClassScores") -> ClassDifference:
        """How much better these are than others on the same cases: macro-F1 and AUC,
        each `{"value", "ci95", "p_false_claim"}`, by paired bootstrap.

        Both must have been measured with the same seed and resamples. Raises
        `DataError` unless cases, classes and truth are the same.
        """
        first = self.known
        second = other.known
        same_cases = first.names == second.names and first.classes == second.classes
        if not same_cases or not np.array_equal(first.truth, second.truth):
            raise DataError(
                "a paired comparison needs the same cases with the same classes in the "
                "same order"
            )
        cases = len(first.names)
        differences: dict[str, ScoreDifference] = {}
        for name in COMPARED:
            draws = self.draws[name] - other.draws[name]
            value = float((self.value[name] - other.value[name])[0])
            known = cases > 1 and np.isfinite(value)
            interval = difference_interval(value, draws, cases) if known else None
            chance = false_claim_of_draws(draws) if known else None
            differences[name] = {**scored(value, interval), "p_false_claim": chance}
        return cast(ClassDifference, differences)

    def _score(self, name: str) -> Score:
        """A score of all cases."""
        value = float(self.value[name][0])
        return scored(value, self._interval(name, value))

    def _interval(self, name: str, value: float) -> Interval | None:
        """That of a score of all cases; None for a single one."""
        known = self.known
        cases = len(known.names)
        if cases == 1 or not np.isfinite(value):
            return None
        if name == "accuracy":
            return proportion_interval(value, cases)
        if name == "auc":
            return area_interval(value, known.truth, known.probabilities)
        if name in LOSSES:
            return loss_interval(name, known.truth, known.probabilities)
        if name in BOUNDED:
            return bounded_interval(name, value, self.draws[name], cases)
        return None

    def _by_class(self, name: str, counts: Floats) -> dict[str, Score]:
        """A proportion of each class, and of how many cases."""
        scores: dict[str, Score] = {}
        shares = self.value[name][0].tolist()
        for label, share, count in zip(self.known.classes, shares, counts, strict=True):
            known = count > 0 and len(self.known.names) > 1
            interval = proportion_interval(share, float(count)) if known else None
            scores[label] = scored(share, interval)
        return scores


def weighted_scores(known: ClassPredictions, weights: Floats) -> dict[str, Floats]:
    """Scores when case j counts `weights[i, j]` times, for each i; NaN where undefined.

    known: predictions of n cases whose classes are all known. weights: `(r, n)` whole
    numbers. Returns `(r,)` for each of `SCORES`, `(r, k)` for recall and precision,
    `(r, k, k)` for confusion.
    """
    count = len(known.classes)
    total = weights.sum(axis=1)
    cells = _one_hot(known.truth * count + known.answers, count * count)  # (n, k * k)
    confusion = (weights @ cells).reshape(-1, count, count)
    hits = np.diagonal(confusion, axis1=1, axis2=2)  # (r, k)
    support = confusion.sum(axis=2)
    answered = confusion.sum(axis=1)
    recall = _ratio(hits, support)
    f1 = 2 * hits / np.maximum(support + answered, 1)
    brier = weights @ squared_distances(known.probabilities, known.truth)
    log_loss = weights @ log_losses(known.probabilities, known.truth)
    return {
        "macro_f1": f1.mean(axis=1),
        "balanced_accuracy": np.nansum(recall, axis=1) / (support > 0).sum(axis=1),
        "accuracy": hits.sum(axis=1) / total,
        "mcc": _matthews(hits, support, answered),
        "auc": _area_under_roc(known, weights),
        "ece": _calibration_error(known, weights),
        "brier": brier / total,
        "log_loss": log_loss / total,
        "recall": recall,
        "precision": _ratio(hits, answered),
        "confusion": confusion,
    }


def drawn(cases: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each case was drawn in each resample, `(r, n)`, some resamples at a
    time to bound memory.
    """
    rng = np.random.default_rng(seed)
    step = max(1, 2_000_000 // cases)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        places = rng.integers(0, cases, (rows, cases))
        places += cases * np.arange(rows)[:, None]
        counts = np.bincount(places.ravel(), minlength=rows * cases)
        yield counts.reshape(rows, cases).astype(np.float64)


def _matthews(hits: Floats, support: Floats, answered: Floats) -> Floats:
    """Matthews correlation of several classes, `(r,)`; arguments `(r, k)`."""
    total = support.sum(axis=1)
    covariance = hits.sum(axis=1) * total - (support * answered).sum(axis=1)
    spread_of_truth = total**2 - (support**2).sum(axis=1)
    spread_of_answers = total**2 - (answered**2).sum(axis=1)
    spread = spread_of_truth * spread_of_answers
    return np.asarray(covariance / np.sqrt(np.where(spread > 0, spread, np.inf)))


def _area_under_roc(known: ClassPredictions, weights: Floats) -> Floats:
    """Mean over classes of the area of the class against the rest; of two classes that
    of the second.
    """
    areas = [
        _area(known.probabilities[:, k], known.truth == k, weights)
        for k in positive_classes(len(known.classes))
    ]
    return np.asarray(np.mean(areas, axis=0))


def _area(score: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Chance that a positive scores higher than a negative, ties counting half, `(r,)`;
    NaN without both.
    """
    order = np.argsort(score, kind="stable")
    weighted = weights[:, order]
    # Where each run of equal scores starts.
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    hits = np.add.reduceat(weighted * positive[order], starts, axis=1)
    misses = np.add.reduceat(weighted * ~positive[order], starts, axis=1)
    won = (hits * (misses.cumsum(axis=1) - misses / 2)).sum(axis=1)
    return _ratio(won, hits.sum(axis=1) * misses.sum(axis=1))


def _calibration_error(known: ClassPredictions, weights: Floats) -> Floats:
    """Expected calibration error of the top label, `(r,)`."""
    confidence = known.probabilities.max(axis=1)
    index = equal_width_bins(confidence)
    gap = (known.answers == known.truth) - confidence
    by_bin = (weights * gap) @ _one_hot(index, int(index.max()) + 1)  # (r, bins)
    return np.asarray(np.abs(by_bin).sum(axis=1) / weights.sum(axis=1))


def _one_hot(index: NDArray[np.integer[Any]], count: int) -> Floats:
    return np.asarray(np.eye(count)[index])


def _ratio(part: Floats, whole: Floats) -> Floats:
    """NaN where the whole is 0."""
    return np.asarray(part / np.where(whole > 0, whole, np.nan))
