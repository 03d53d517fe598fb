"""The tasks by name, and which one a dataset, a model or a metrics.json is of."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from trivox.datasets.dataset import Dataset
from trivox.errors import BundleError, RecipeError
from trivox.evaluation.metrics.content import MetricsFile
from trivox.files import read_json
from trivox.inference.bundle import bundle_content
from trivox.tasks.labels.multitask import MultitaskTask
from trivox.tasks.labels.segmentation import SegmentationTask
from trivox.tasks.pretraining import PretrainingTask
from trivox.tasks.reconstruction.task import ReconstructionTask
from trivox.tasks.task import ModelTask, Task

AnyModelTask = ModelTask[Any, Any]

SEGMENTATION = SegmentationTask()
TASKS: dict[str, AnyModelTask] = {
    task.name: task for task in (SEGMENTATION, MultitaskTask(), ReconstructionTask())
}
"""Tasks that give a model."""
PRETRAINING = PretrainingTask()


def task_named(name: str) -> Task[Any, Any]:
    """A task by name, pretraining included; raises `RecipeError` listing what is known."""
    if name == PRETRAINING.name:
        return PRETRAINING
    if name not in TASKS:
        known = ", ".join(TASKS)
        raise RecipeError(f"task '{name}' does not exist; choose one of {known}")
    return TASKS[name]


def task_of(what: Dataset | Path | Mapping[str, Any]) -> AnyModelTask:
    """The task of a dataset, of a run or bundle (a path), or of a metrics.json.

    It is what their field `task` says. Datasets as they are read from a layout, and
    metrics of 0.1.0, have none: their content decides. Raises `BundleError` for a path
    that holds no model, or one of an unknown task.
    """
    if isinstance(what, Path):
        return _known(bundle_content(what)[1].get("task"), what)
    if isinstance(what, Dataset):
        named = TASKS.get(what.task or "")
        return named or _first(task for task in TASKS.values() if task.suits(what))
    if "task" in what:
        return _known(what["task"], "metrics")
    metrics = cast(MetricsFile, what)
    return _first(task for task in TASKS.values() if task.wrote(metrics))


def task_for(dataset: Dataset, name: str | None) -> Task[Any, Any]:
    """The task that a user names, else the one of the dataset; raises `RecipeError`."""
    return task_of(dataset) if name is None else task_named(name)


def task_of_run(run: Path) -> AnyModelTask:
    """The task of a run, trained to its end or not; raises `BundleError`."""
    file = run / "plan.json"
    if not file.exists():
        raise BundleError(f"{run}: holds no plan.json; give the folder of a run")
    content = read_json(file)
    return _known(content.get("task") if isinstance(content, dict) else None, file)


def task_of_references(references: Path) -> AnyModelTask:
    """The task whose predictions are measured against what lies at a path."""
    tasks = TASKS.values()
    return _first(task for task in tasks if task.suits_references(references))


def _first(claiming: Iterator[AnyModelTask]) -> AnyModelTask:
    """The first task that claims something; segmentation takes what none claims."""
    return next(claiming, SEGMENTATION)


def _known(name: object, where: Path | str) -> AnyModelTask:
    if not isinstance(name, str) or name not in TASKS:
        known = ", ".join(TASKS)
        raise BundleError(f"{where}: is of task '{name}', which is none of {known}")
    return TASKS[name]
