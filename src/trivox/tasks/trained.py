"""What a training leaves for the bundle of its model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivox.config.recipe import Recipe
from trivox.evaluation.metrics.content import MetricsFile
from trivox.learning.checkpoints import final_weights
from trivox.learning.ranks.sharing import from_first
from trivox.tasks.task import Prepared


def trained_weights(recipe: Recipe, folders: Mapping[int, Path]) -> dict[str, Path]:
    """The weights file of each trained fold that becomes the model, written by the first
    rank; folders: of the folds.
    """

    def write() -> dict[str, Path]:
        return {
            str(fold): final_weights(folder / "checkpoints", recipe.final_weights)
            for fold, folder in folders.items()
        }

    return from_first(write, ())


def training_summary(
    prepared: Prepared[Any, Any],
    recipe: Recipe,
    folders: Mapping[int, Path],
    metrics: MetricsFile,
) -> dict[str, object]:
    """What a bundle says about its training."""
    cases = {str(fold): len(prepared.splits[fold].train) for fold in folders}
    return {
        "dataset": prepared.dataset.name,
        "folds": cases,
        "recipe": recipe.model_dump(mode="json"),
        "validation": metrics["summary"],
    }
