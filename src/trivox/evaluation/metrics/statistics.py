"""Summaries of metrics over cases, and how certain they are."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from trivox.evaluation.metrics.content import Statistic
from trivox.evaluation.metrics.intervals import (
    ANYWHERE,
    POSITIVE,
    SHARE,
    Support,
    mean_interval,
    median_interval,
)

HIGHER_IS_BETTER = (
    "dice",
    "iou",
    "sensitivity",
    "specificity",
    "precision",
    "nsd",
    "nsd_voxel",
    "whole_dice",
    "instance_dice",
    "instance_nsd",
    "lesion_precision",
    "lesion_sensitivity",
    "rq",
    "pq",
)
"""Metrics of labels, all of them shares."""
LOWER_IS_BETTER = ("hd95_mm", "assd_mm", "whole_hd95_mm", "instance_hd95_mm")
SHARES = {*HIGHER_IS_BETTER, "lung_dice", "bone_dice"}
OTHERS = {
    "ssim": Support(-1.0, 1.0),
    "volume_ml": POSITIVE,
    "reference_volume_ml": POSITIVE,
    "volume_error_percent": Support(-100.0),
    "projection_rmse": POSITIVE,
}
POSITIVE_ENDS = ("hd95_mm", "assd_mm", "_hu")
COUNTS = "lesions_"
OLD = "percentile bootstrap"
"""Of files that do not say."""
CONVENTION = (
    "ci95: 95 % interval of the mean over cases, method: how it was found; without "
    "bounds (errors in ml, PSNR) Student-t; between bounds, from 8 cases on, Hall's "
    "skewness-corrected t, below that Student-t of the logit or the logarithm of the "
    "mean; null where all values are alike. median_ci95: of the median, order "
    "statistics, from 6 cases on"
)


def support_of(metric: str) -> Support:
    """Between what values a metric lies, by its name; unknown ones anywhere."""
    if metric in SHARES:
        return SHARE
    if metric.endswith(POSITIVE_ENDS) or metric.startswith(COUNTS):
        return POSITIVE
    return OTHERS.get(metric, ANYWHERE)


def summarise(values: Sequence[float | None], metric: str = "") -> Statistic:
    """Mean, std (n - 1), median, 95 % intervals of mean and median, and n, of the
    values that are finite; metric: its name, from which it is known where values can
    lie.

    What cannot be known is None: everything for no value, std and ci95 for a single
    one.
    """
    numbers = [value for value in values if value is not None and np.isfinite(value)]
    known = np.array(numbers, dtype=float)
    if not known.size:
        return {"mean": None, "std": None, "median": None, "ci95": None, "n": 0}
    interval = mean_interval(known, support_of(metric))
    middle = median_interval(known)
    return {
        "mean": float(known.mean()),
        "std": float(known.std(ddof=1)) if known.size > 1 else None,
        "median": float(np.median(known)),
        "ci95": None if interval is None else [interval.low, interval.high],
        "method": None if interval is None else interval.method,
        "median_ci95": None if middle is None else list(middle),
        "n": int(known.size),
    }


def methods_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Methods of the intervals of statistics or scores, each once, as far as they are
    known; files of 0.1.0 do not name theirs.
    """
    names = [row.get("method", OLD) for row in rows if row.get("ci95")]
    return list(dict.fromkeys(name for name in names if name is not None))
