"""95 % intervals, each by the method that covers best for its kind of value and number
of cases; benchmarks/coverage.py simulates how often they do.

Means: Student-t where values have no bound; where they have, distributions are skewed,
and from `ENOUGH` cases on the skewness is corrected as Hall does (1992, "On the Removal
of Skewness by Transformation"), with quantiles of Student-t. Below that it cannot be
estimated: there the interval is Student-t of the logit (two bounds) or the logarithm
(one bound) of the mean, by the delta method. Medians: order statistics. Proportions:
Wilson 1927. Percentile bootstraps are nowhere used: of few cases they are too narrow.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ENOUGH = 8
"""Cases from which skewness is estimated."""
ENOUGH_FOR_LOGARITHM = 4
"""Of fewer, it gives bounds beyond all measure."""
ALIKE = 1e-9
"""Spread over size of values below which they are alike but for rounding."""

NORMAL = 1.959963984540054
"""Of which 2.5 % of a normal distribution lie above."""

STUDENT_T = "Student-t"
LOGIT_T = "Student-t of the logit"
LOG_T = "Student-t of the logarithm"
HALL = "Hall's skewness-corrected t"
WILSON = "Wilson"
ORDER = "order statistics"


class Support(NamedTuple):
    """Between what values a metric lies."""

    low: float = -np.inf
    high: float = np.inf

    def holds(self, values: Floats) -> bool:
        """Whether all values lie in it."""
        return bool((values >= self.low).all() and (values <= self.high).all())

    @property
    def bounded(self) -> bool:
        """Whether both bounds are finite."""
        return bool(np.isfinite([self.low, self.high]).all())


ANYWHERE = Support()
POSITIVE = Support(0.0)
SHARE = Support(0.0, 1.0)


class Interval(NamedTuple):
    """Bounds, and by which method."""

    low: float
    high: float
    method: str


def mean_interval(values: Floats, support: Support = ANYWHERE) -> Interval | None:
    """95 % interval of the mean of `(n,)` values by the method that the module says.

    None for fewer than two values, and where all are alike: they do not say how others
    vary. Values outside their support are taken to have none.
    """
    if values.size < 2 or _alike(values):
        return None
    within = support if support.holds(values) else ANYWHERE
    if not np.isfinite(within.low):
        return Interval(*student_t_interval(values), STUDENT_T)
    if values.size >= ENOUGH:
        low, high = hall_interval(values)
        return Interval(max(low, within.low), min(high, within.high), HALL)
    mean = float(values.mean())
    error = standard_error(values)
    if within.bounded:
        return logit_interval(mean, error, values.size, within)
    if values.size < ENOUGH_FOR_LOGARITHM:
        low, high = student_t_interval(values)
        return Interval(max(low, within.low), high, STUDENT_T)
    low, high = log_interval(mean - within.low, error, values.size)
    return Interval(within.low + low, within.low + high, LOG_T)


def student_t_interval(values: Floats) -> tuple[float, float]:
    """Mean +- t(0.975, n - 1) sd / sqrt(n) of `(n,)` values, n above 1."""
    mean = float(values.mean())
    half = t_quantile(values.size) * standard_error(values)
    return mean - half, mean + half


def standard_error(values: Floats) -> float:
    """Of the mean of `(n,)` values, n above 1."""
    return float(values.std(ddof=1) / values.size**0.5)


def hall_interval(values: Floats) -> tuple[float, float]:
    """Student-t with the cubic transformation of Hall 1992 that takes skewness out of
    the t statistic, `(n,)` values, n above 2, not all alike.
    """
    mean = float(values.mean())
    error = standard_error(values)
    slope = _skewness(values) / (3 * values.size**0.5)
    quantile = t_quantile(values.size)
    low = mean - error * _unskewed(quantile, slope)
    high = mean - error * _unskewed(-quantile, slope)
    return low, high


def _skewness(values: Floats) -> float:
    """Of the distribution that `(n,)` values are from, n above 2."""
    cases = values.size
    apart = values - values.mean()
    standardised = apart / values.std(ddof=1)
    cubes = float((standardised**3).sum())
    freedom = (cases - 1) * (cases - 2)
    return float(cubes * cases / freedom)


def _unskewed(quantile: float, slope: float) -> float:
    """The t statistic whose transformation is `quantile`; slope: skewness / 3 sqrt(n)."""
    shifted = quantile - slope / 2
    if abs(slope) < 1e-9:
        return shifted
    return (float(np.cbrt(1 + 3 * slope * shifted)) - 1) / slope


def log_interval(mean: float, error: float, cases: int) -> tuple[float, float]:
    """Interval of a mean above 0 with a standard error, symmetric for its logarithm."""
    factor = float(np.exp(t_quantile(cases) * error / mean))
    return mean / factor, mean * factor


def logit_interval(
    value: float, error: float, cases: int, support: Support = SHARE
) -> Interval:
    """Interval of a score between two bounds with a standard error, symmetric for its
    logit; where it stands at a bound or has no error, that of so many cases of which
    all count so.
    """
    width = support.high - support.low
    share = (value - support.low) / width
    if not 0 < share < 1 or error <= 0:
        low, high, method = wilson_interval(round(share * cases), cases)
    else:
        slope = share * (1 - share)
        half = t_quantile(cases) * error / (width * slope)
        centre = np.log(share / (1 - share))
        low = _share_of(centre - half)
        high = _share_of(centre + half)
        method = LOGIT_T
    low = support.low + width * low
    high = support.low + width * high
    return Interval(low, high, method)


def _share_of(logit: float) -> float:
    from scipy.special import expit

    return float(expit(logit))


def wilson_interval(hits: float, cases: float) -> Interval:
    """Score interval of a proportion (Wilson 1927), cases above 0."""
    share = hits / cases
    weight = NORMAL**2 / cases
    centre = share + weight / 2
    variance = share * (1 - share) / cases
    squared = variance + weight / (4 * cases)
    half = NORMAL * squared**0.5
    low = (centre - half) / (1 + weight)
    high = (centre + half) / (1 + weight)
    return Interval(max(low, 0.0), min(high, 1.0), WILSON)


def median_interval(values: Floats) -> tuple[float, float] | None:
    """Interval of the median of `(n,)` values that holds it with at least 95 %,
    whatever their distribution: the order statistics k and n + 1 - k, by the binomial
    distribution; None for fewer than 6.
    """
    from scipy.special import bdtr

    cases = values.size
    below = [k for k in range(cases // 2) if bdtr(k, cases, 0.5) <= 0.025]
    if not below:
        return None
    ordered = np.sort(values)
    return float(ordered[below[-1]]), float(ordered[-1 - below[-1]])


def t_quantile(cases: int) -> float:
    """0.975 of Student-t with n - 1 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(cases - 1, 0.975))


def _alike(values: Floats) -> bool:
    return float(np.ptp(values)) <= ALIKE * float(np.abs(values).max())
