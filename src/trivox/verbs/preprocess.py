"""Preparing a dataset once for many trainings: `trivox.preprocess`."""

from dataclasses import dataclass
from pathlib import Path

from trivox.config.choices import PresetName, TaskName
from trivox.datasets.layouts.choice import load_dataset
from trivox.learning.runtime import make_runtime
from trivox.locks import claimed
from trivox.preparation.renewal import VERB, release
from trivox.tasks.choice import task_for
from trivox.tasks.console import Console, Quiet
from trivox.tasks.stages import prepare, recipe_for
from trivox.tasks.task import RunRequest
from trivox.verbs.folders import require_preparation
from trivox.verbs.settings import overrides, recipe_name, series_choice
from trivox.verbs.texts import described


@dataclass(frozen=True)
class Preprocessed:
    """A folder for `trivox train --prepared`, and the cases that it holds."""

    folder: Path
    cases: tuple[str, ...]
    task: str


@described
def preprocess(
    dataset: Path | str,
    out: Path | str,
    *,
    task: TaskName | None = None,
    classes: Path | str | None = None,
    plan: Path | str | None = None,
    preset: PresetName | None = None,
    recipe: Path | str | None = None,
    network: str | None = None,
    workers: int = 2,
    series: str | None = None,
    slice_tolerance: float | None = None,
    console: Console | None = None,
) -> Preprocessed:
    """Normalise and resample all training cases; a second call finishes what was
    interrupted, and prepares again what no longer matches its files.

    Raises `DataError` if training on the dataset would be wrong, and naming all cases
    that failed after the others are done.
    """
    require_preparation(Path(out), Path(dataset))
    choice = series_choice(series, slice_tolerance)
    data = load_dataset(Path(dataset)).read_by(choice)
    chosen_task = task_for(data, task)
    table = None if classes is None else Path(classes)
    settings = overrides(recipe, None, network=network, workers=workers)
    named = recipe_name(recipe) or chosen_task.recipe
    request = RunRequest(
        dataset=Path(dataset),
        out=Path(out),
        plan=None if plan is None else Path(plan),
        task=chosen_task.name,
        classes=table,
    )
    chosen = recipe_for(preset, settings, named=named)
    console = console or Quiet()
    with claimed(request.out, VERB, wait=True, say=console.say):
        prepared = prepare(
            chosen_task,
            chosen_task.dataset(data, table),
            request,
            chosen,
            runtime=make_runtime("cpu"),
            reuse_plan=False,
            console=console,
        )
    release(prepared.store)
    names = tuple(case.name for case in prepared.dataset.training_cases)
    return Preprocessed(request.out, names, chosen_task.name)
