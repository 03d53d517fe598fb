"""Predictors that are kept ready for the next case of a process."""

from collections.abc import Callable, Hashable
from typing import Any

from trivox.inference.many.predictors import CasePredictor

READY: dict[Hashable, CasePredictor[Any]] = {}
"""By models and options: filled by a process that predicts case after case with models
that do not change.
"""


def ready_predictor(
    key: Hashable, make: Callable[[], CasePredictor[Any]]
) -> CasePredictor[Any]:
    """The predictor that is kept under a key; a new one if there is none."""
    ready = READY.get(key)
    return make() if ready is None else ready
