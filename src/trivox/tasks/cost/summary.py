"""What a bundle says about the training that made it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivox.config.recipe import Recipe
from trivox.errors import FormatError
from trivox.evaluation.metrics.content import MetricsFile
from trivox.planning.cost import CostFile
from trivox.tasks.cost.ledger import read_cost
from trivox.tasks.task import Prepared


def training_summary(
    prepared: Prepared[Any, Any],
    recipe: Recipe,
    folders: Mapping[int, Path],
    metrics: MetricsFile,
    run: Path,
) -> dict[str, object]:
    """Data, recipe, figures, and what preparing and training in `run` has cost."""
    cases = {str(fold): len(prepared.splits[fold].train) for fold in folders}
    summary: dict[str, object] = {
        "dataset": prepared.dataset.name,
        "folds": cases,
        "recipe": recipe.model_dump(mode="json"),
        "validation": metrics["summary"],
    }
    cost = _cost_of(run)
    if cost is not None:
        summary["cost"] = cost
    return summary


def _cost_of(run: Path) -> dict[str, object] | None:
    """What a run has cost up to now; None where that is not known."""
    try:
        cost = read_cost(run)
    except FormatError:
        return None
    return None if cost is None or not cost.measured else in_short(cost)


def in_short(cost: CostFile) -> dict[str, object]:
    """All stages of a run together, for people and programs that have no run."""
    total = cost.total
    return {
        "stages": list(cost.measured),
        "seconds": round(total.seconds, 1),
        "cpu_seconds": round(total.cpu_seconds, 1),
        "memory_bytes": total.memory_bytes,
        "gpu_memory_bytes": total.gpu_memory_bytes,
        "kwh": round(total.kwh, 6),
        "energy_by": list(total.energy_by),
        "price": cost.settings.price(total),
    }
