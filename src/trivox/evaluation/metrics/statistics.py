"""Summaries over cases and how certain they are: bootstrap intervals, seeded and
vectorised.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trivox.errors import DataError
from trivox.evaluation.metrics.content import PairedDifference, Statistic

RESAMPLES = 2000


def summarise(values: Sequence[float | None], *, seed: int = 0) -> Statistic:
    """Mean, std (n - 1), median, 95 % interval of the mean, and n, of the values that
    are not None or NaN.

    What cannot be known is None: everything for no value, std and ci95 for a single
    one.
    """
    numbers = [value for value in values if value is not None and np.isfinite(value)]
    known = np.array(numbers, dtype=float)
    if not known.size:
        return {"mean": None, "std": None, "median": None, "ci95": None, "n": 0}
    several = known.size > 1
    return {
        "mean": float(known.mean()),
        "std": float(known.std(ddof=1)) if several else None,
        "median": float(np.median(known)),
        "ci95": list(bootstrap_interval(known, seed=seed)) if several else None,
        "n": int(known.size),
    }


def bootstrap_interval(
    values: Sequence[float] | NDArray[np.float64],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979); cases are the unit that
    is drawn.
    """
    means = _resampled_means(np.asarray(values, dtype=float), resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    first: Sequence[float | None],
    second: Sequence[float | None],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """How much better the first model is than the second on the same cases, in the same
    order.

    Returns mean difference, its 95 % interval, a two-sided bootstrap p-value (twice the
    smaller tail, not below 1 / resamples) and n; cases without a value in both are left
    out. Raises `DataError` if the lengths differ or no case remains.
    """
    if len(first) != len(second):
        raise DataError(
            f"a paired comparison needs the same cases: {len(first)} and "
            f"{len(second)} values were given"
        )
    differences = paired_differences(first, second)
    if not differences.size:
        raise DataError(
            "a paired comparison needs at least one case that both models have a value "
            "for"
        )
    means = _resampled_means(differences, resamples, seed)
    tail = min(float((means <= 0).mean()), float((means >= 0).mean()))
    low, high = np.quantile(means, [0.025, 0.975])
    p_value = min(max(2 * tail, 1 / resamples), 1.0)
    return {
        "mean": float(differences.mean()),
        "ci95": [float(low), float(high)],
        "p_value": p_value,
        "n": int(differences.size),
    }


def paired_differences(
    first: Sequence[float | None], second: Sequence[float | None]
) -> NDArray[np.float64]:
    """First minus second of the cases that have a value in both, `(n,)`."""
    differences = [
        a - b
        for a, b in zip(first, second, strict=True)
        if a is not None and b is not None
    ]
    return np.array(differences, dtype=float)


def _resampled_means(
    values: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, values.size, size=(resamples, values.size))
    return np.asarray(values[draws].mean(axis=1))
