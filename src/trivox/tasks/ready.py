"""Predictors that are kept ready for the next case of a process."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trivox.inference.many.predictors import CasePredictor
from trivox.tasks.task import ModelTask, PredictOptions

Key = tuple[str, tuple[Path, ...], PredictOptions]

READY: dict[Key, CasePredictor[Any]] = {}
"""By task, models and options: filled by a process that predicts case after case with
models that do not change.
"""


def key_of(
    task: ModelTask[Any, Any], models: Sequence[Path], options: PredictOptions
) -> Key:
    """What a predictor is kept under."""
    return task.name, tuple(models), options


def ready_predictor(
    task: ModelTask[Any, Any], models: Sequence[Path], options: PredictOptions
) -> CasePredictor[Any]:
    """The predictor that is kept for the models and options; a new one if there is none."""
    ready = READY.get(key_of(task, models, options))
    return task.predictor(models, options) if ready is None else ready
