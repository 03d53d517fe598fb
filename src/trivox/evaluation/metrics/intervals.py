"""Intervals, each by the method that covers what it says."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

STUDENT_T = "Student-t"


def student_t_interval(values: Floats, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of the mean of `(n,)` values, n above 1: mean +- t sd / sqrt(n)."""
    from scipy.special import stdtrit

    mean = float(values.mean())
    error = float(values.std(ddof=1)) / np.sqrt(values.size)
    half = float(stdtrit(values.size - 1, (1 + level) / 2)) * error
    return mean - half, mean + half
