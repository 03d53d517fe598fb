"""Summaries over cases and how certain they are: bootstrap intervals, seeded and
vectorised.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trivox.evaluation.metrics.content import Statistic

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


def _resampled_means(
    values: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, values.size, size=(resamples, values.size))
    return np.asarray(values[draws].mean(axis=1))
