"""The stages before training: check, plan, preprocess.

Each leaves a file in the run and is reused if it is there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from trivox.config.recipe import Recipe, make_recipe
from trivox.datasets.content import changed_cases
from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import save_dataset
from trivox.datasets.splits import FILE as SPLITS
from trivox.datasets.splits import Split, dataset_splits, read_folds, write_folds
from trivox.errors import DataError, FormatError, PlanError, few
from trivox.files import read_json, surviving_folder, write_json
from trivox.learning.runtime import Runtime, make_runtime
from trivox.planning.fingerprint import (
    Fingerprint,
    measure,
    read_fingerprint,
    write_fingerprint,
)
from trivox.schema import Frozen, validated
from trivox.tasks.checking import require_checked, still_set_aside
from trivox.tasks.console import Console, Quiet
from trivox.tasks.origin import (
    require_same_content,
    require_same_plan,
    restore_plan,
    write_content,
)
from trivox.tasks.sites import with_site_folds
from trivox.tasks.task import PlanT, Prepared, RunRequest, StoreT, Task

CHECK = "check.json"
PLAN = "plan.json"
RUN = "run.json"
DATASET = "dataset.json"
FOLDS = 5


def recipe_for(
    preset: str | None,
    overrides: Mapping[str, Any] | None,
    *,
    device: str = "auto",
    named: str | None = None,
) -> Recipe:
    """The recipe asked for; without a preset, quick_test where there is no GPU (others
    take weeks), else production.
    """
    if preset is None:
        on_a_cpu = make_runtime(device, "auto").device.type == "cpu"
        preset = "quick_test" if on_a_cpu else "production"
    return make_recipe(preset, overrides, named=named)


def prepare(
    task: Task[PlanT, StoreT],
    dataset: Dataset,
    request: RunRequest,
    recipe: Recipe,
    *,
    runtime: Runtime,
    reuse_plan: bool = True,
    console: Console,
) -> Prepared[PlanT, StoreT]:
    """Run the stages that are missing in the request's folder; raises `DataError` if
    training on the dataset would be wrong.

    dataset: what the task learns from, as `Task.load` gives it; reuse_plan: take the
    plan that is there already.
    """
    out = request.out
    begun = started(out)
    if begun:
        dataset = still_set_aside(dataset, out / CHECK)
    require_same_content(dataset, out, console, begun=begun)
    dataset = require_checked(dataset, out / CHECK, console, task=task.name)
    if recipe.split_by == "intensity":
        dataset = with_site_folds(dataset, out / DATASET, console)
    write_content(dataset, out, workers=recipe.cases_at_a_time, console=console)
    save_dataset(dataset, out / DATASET)
    if begun:
        restore_plan(out)
    plan_file = _plan_file(request, reuse_plan=reuse_plan)
    if plan_file is None:
        plan = task.plan(
            dataset,
            recipe,
            runtime=runtime,
            fingerprint=out / "fingerprint.json",
            console=console,
        )
    else:
        plan = task.read_plan(plan_file)
        task.require_fitting(plan, dataset, plan_file)
        plan = plan.model_copy(update={"task": task.name})
    require_same_plan(plan, out, begun=begun)
    write_json(out / PLAN, plan.model_dump(mode="json"))
    console.say(task.plan_line(plan))
    store = _store(task, dataset, plan, request, recipe, console)
    return Prepared(dataset, plan, splits_of(dataset, out), store)


def prepared_before(
    task: Task[PlanT, StoreT],
    dataset: Dataset,
    request: RunRequest,
    recipe: Recipe,
    *,
    console: Console,
) -> Prepared[PlanT, StoreT]:
    """What another process has prepared just now in the request's folder."""
    out = request.out
    dataset = still_set_aside(dataset, out / CHECK)
    if recipe.split_by == "intensity":
        dataset = with_site_folds(dataset, out / DATASET, Quiet())
    plan = task.read_plan(out / PLAN)
    store = _store(task, dataset, plan, request, recipe, console)
    return Prepared(dataset, plan, dataset_splits(dataset, folds=FOLDS), store)


def _store(
    task: Task[PlanT, StoreT],
    dataset: Dataset,
    plan: PlanT,
    request: RunRequest,
    recipe: Recipe,
    console: Console,
) -> StoreT:
    """All training cases, prepared in the run or where the request says."""
    return task.store(
        dataset,
        plan,
        (request.prepared or request.out) / "prepared",
        workers=recipe.cases_at_a_time,
        replace=request.prepared is None,
        console=console,
    )


def _plan_file(request: RunRequest, *, reuse_plan: bool) -> Path | None:
    """The plan to take: the one that the user named, else the one in the run; raises
    `PlanError` for another plan than a started run has.
    """
    there = request.out / PLAN
    if not reuse_plan or not there.exists():
        return request.plan
    if request.plan is None or _same_plan(request.plan, there):
        return there
    if started(request.out):
        raise PlanError(
            f"{request.out}: was started with another plan than {request.plan}; resume "
            "without --plan, or choose another --out"
        )
    return request.plan


def _same_plan(first: Path, second: Path) -> bool:
    """Whether two files hold one plan; a run writes its own task into it."""
    plans = [read_json(file) for file in (first, second)]
    return all(
        isinstance(plan, dict) and {**plan, "task": None} == {**plans[0], "task": None}
        for plan in plans
    )


def fingerprint_of(
    dataset: Dataset, file: Path, console: Console, *, labelled: bool = True
) -> Fingerprint:
    """Measure the training cases, or read what was measured before on the same files."""
    cases = dataset.training_cases
    if file.exists():
        earlier = read_fingerprint(file)
        same_data = earlier.dataset == dataset.name
        same_channels = set(earlier.intensities) == set(dataset.channels)
        changed = changed_cases(cases, dataset.labels, earlier.content)
        if same_data and same_channels and not changed:
            return earlier
        which = f": {few(changed)}" if earlier.content and changed else ""
        console.say(
            f"{file}: was measured on other data; all cases are measured again{which}"
        )
    total = len(cases)
    fingerprint = measure(
        dataset,
        labelled=labelled,
        progress=lambda cases: console.track(cases, total, "measuring"),
        say=console.say,
    )
    write_fingerprint(fingerprint, file)
    return fingerprint


def started(run: Path) -> bool:
    """Whether training in `run` has left a checkpoint."""
    folders = run.glob("**/checkpoints")
    return any(surviving_folder(folder / "latest") for folder in folders)


def splits_of(dataset: Dataset, out: Path) -> tuple[Split, ...]:
    """The folds; those that a started run was trained with may not change, or it would
    be validated on its own cases.
    """
    splits = dataset_splits(dataset, folds=FOLDS)
    known = (out / SPLITS).exists() and started(out)
    if known and read_folds(out) != list(splits):
        raise DataError(
            f"{out}: the folds changed since this run began (now {splits[0].source}); "
            "choose another --out, or restore them"
        )
    write_folds(splits, out)
    return splits


# -- which part of a task --------------------------------------------------------------
class RunFile(Frozen):
    """What run.json says: the fold that a run trains, by its number, or `all`; files of
    0.1.0 state no version.
    """

    task: str | None = None
    format_version: Literal[1] = 1
    fold: str


def write_run(content: RunFile, run: Path) -> None:
    """Write the `run.json` of a run."""
    write_json(run / RUN, content.model_dump(mode="json"))


def read_run(run: Path) -> RunFile:
    """What a run trains; raises `FormatError` for a `run.json` that is missing or does
    not say it.
    """
    file = run / RUN
    content = read_json(file)
    advice = "restore the file"
    return validated(RunFile, content, where=file, error=FormatError, advice=advice)
