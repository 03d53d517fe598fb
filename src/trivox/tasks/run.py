"""A run of any task: settle the recipe, prepare, train the folds, finish."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from trivox.config.recipe import Recipe, read_recipe
from trivox.config.remedies import doubled_remedies
from trivox.datasets.clinical.columns import column_lines, columns_of
from trivox.datasets.clinical.tables import with_clinical
from trivox.datasets.dataset import Dataset
from trivox.datasets.splits import Split
from trivox.errors import RecipeError, few
from trivox.files import read_json, surviving_folder, write_json
from trivox.learning.progress import Progress
from trivox.learning.ranks.group import first_rank_first, meet, process_group
from trivox.learning.runtime import (
    Runtime,
    launched_rank,
    make_runtime,
    rank,
    seed_everything,
    world_size,
)
from trivox.learning.tracking import run_log
from trivox.learning.trainer import Trainer
from trivox.locks import claimed
from trivox.planning.cost import Amount
from trivox.preparation.renewal import release
from trivox.schema import stamped
from trivox.tasks.checking import require_foreground
from trivox.tasks.choice import task_named
from trivox.tasks.console import Console, Quiet
from trivox.tasks.cost.ledger import opened, planned_cost
from trivox.tasks.cost.table import cost_lines
from trivox.tasks.residence import at_hand
from trivox.tasks.stages import (
    CHECK,
    RunFile,
    prepare,
    prepared_before,
    read_run,
    recipe_for,
    started,
    write_run,
)
from trivox.tasks.start import require_start, start_from
from trivox.tasks.task import PlanT, Prepared, RunRequest, StoreT, Task
from trivox.tasks.unlabelled import with_unlabelled

RECIPE = "recipe.json"
MAY_CHANGE = {"epochs", "minutes", "seed"}
"""Settings that a plan does not depend on."""
ON_THE_WAY = ("epochs", "minutes", "learning_rate", "gradient_clip", "precision")
"""Settings that may change when a run is resumed: to train longer, or to go on where it
diverged.
"""


def run_request(
    request: RunRequest, *, console: Console | None = None
) -> Mapping[str, Any]:
    """Everything from the folder to the report; returns what was measured, the content
    of `validation/metrics.json` for tasks that give a model.

    Finished stages are reused. Under torchrun all ranks train and predict the held-out
    cases, rank 0 does the rest.
    """
    task = task_named(request.task)
    # before anything is written
    dataset = task.load(request.dataset, request.classes)
    asked = asked_recipe(request, task)
    task.require_possible(asked)
    require_declared_fold(request, dataset)
    if not started(request.out):
        require_start(asked)
    console = console if console is not None and launched_rank() == 0 else Quiet()
    settled = _settled(request, asked)
    columns = settled.classification.clinical if task.learns_classes else ()
    dataset = with_clinical(dataset, request.classes, columns)
    training = dataset.training_cases
    for line in column_lines(training, columns_of(training, columns)):
        console.say(line)
    dataset = with_unlabelled(dataset, settled.distillation, console)
    dataset = dataset.read_by(request.choice)
    with _sole_writer(request, task, console):
        return _run(task, dataset, request, console)


@contextmanager
def _sole_writer(
    request: RunRequest, task: Task[Any, Any], console: Console
) -> Iterator[None]:
    """Keep other trainings out of the run; ranks come together, and the first speaks
    for all.
    """
    if launched_rank() != 0:
        yield
        return
    with claimed(request.out, task.verb, say=console.say):
        yield


def _run(
    task: Task[PlanT, StoreT], dataset: Dataset, request: RunRequest, console: Console
) -> Mapping[str, Any]:
    device = make_runtime(request.device).device
    with process_group(device), ExitStack() as held:
        planned = planned_cost(request.plan, request.task, say=console.say)
        ledger = held.enter_context(opened(request, device, planned, say=console.say))
        with ledger.stage("preparation", whole=True):
            recipe, runtime, prepared = _begun(task, dataset, request, console)
        held.callback(release, prepared.store)
        folders = fold_folders(request, prepared.splits)
        amount = amount_of(prepared, folders)
        ledger.foresee(planned, recipe, runtime, amount, say=console.say)
        require_foreground(
            prepared.dataset, prepared.splits, folders, request.out / CHECK
        )
        classed = task.learns_classes and bool(prepared.dataset.classes)
        for line in doubled_remedies(recipe, classes=classed):
            console.say(line)
        for line in length_lines(task, recipe, prepared, list(folders)):
            console.say(line)
        for fold, folder in folders.items():
            with ledger.stage("training"):
                train_fold(
                    task,
                    prepared,
                    recipe,
                    folder,
                    fold=fold,
                    runtime=runtime,
                    console=console,
                    after_epoch=ledger.note,
                )
        meet()  # the last checkpoint is written by the first rank
        with ledger.stage("validation"):
            results = task.finish(request, recipe, prepared, folders, console)
            meet()
        with ledger.stage("report"):
            if results:
                task.report(request.out, folders, console)
            meet()
        for line in cost_lines(ledger.cost):
            console.say(line)
        return results


def amount_of(prepared: Prepared[Any, Any], folders: Mapping[int, Path]) -> Amount:
    """How much is trained and validated."""
    held_out = {name for fold in folders for name in prepared.splits[fold].validation}
    cases = len(prepared.dataset.training_cases)
    return Amount(cases=cases, held_out=len(held_out), folds=len(folders))


def _begun(
    task: Task[PlanT, StoreT], dataset: Dataset, request: RunRequest, console: Console
) -> tuple[Recipe, Runtime, Prepared[PlanT, StoreT]]:
    """What training needs: the first rank settles and prepares it, the others read what
    it left.
    """
    with first_rank_first():
        first = rank() == 0
        file = request.out / RECIPE
        recipe = settle_recipe(request, task) if first else read_recipe(read_json(file))
        runtime = make_runtime(request.device, recipe.precision)
        if first:
            prepared = prepare(
                task, dataset, request, recipe, runtime=runtime, console=console
            )
        else:
            prepared = prepared_before(task, dataset, request, recipe, console=console)
    return recipe, runtime, prepared


def length_lines(
    task: Task[PlanT, StoreT],
    recipe: Recipe,
    prepared: Prepared[PlanT, StoreT],
    folds: Sequence[int],
) -> list[str]:
    """What a budget in minutes is spent on, said before training begins."""
    if not recipe.minutes:
        return []
    held_out = sum(len(prepared.splits[fold].validation) for fold in folds)
    length = f"training takes {recipe.minutes:g} minutes"
    if len(folds) > 1:
        total = recipe.minutes * len(folds)
        length += f" for each of {len(folds)} folds, {total:g} minutes in all"
    afterwards = task.afterwards(held_out)
    return [f"{length}; {afterwards} come on top" if afterwards else length]


def asked_recipe(request: RunRequest, task: Task[Any, Any]) -> Recipe:
    """The recipe of a request."""
    return recipe_for(
        request.preset,
        task.overrides(request.overrides or {}),
        device=request.device,
        named=request.named or task.recipe,
    )


def _settled(request: RunRequest, asked: Recipe) -> Recipe:
    """What decides what is learnt from: as asked, or as the run began."""
    file = request.out / RECIPE
    if request.resume and file.exists():
        return read_recipe(read_json(file))
    return asked


def settle_recipe(request: RunRequest, task: Task[Any, Any]) -> Recipe:
    """The recipe of a new run, or the saved one when resuming, where only settings
    `ON_THE_WAY` may change.
    """
    file = request.out / RECIPE
    _require_same_part(request)
    recipe = asked_recipe(request, task)
    if not file.exists():
        write_json(file, stamped(recipe.model_dump(mode="json"), request.task))
        return recipe
    saved = read_recipe(read_json(file))
    if started(request.out) and not request.resume:
        raise RecipeError(
            f"{request.out}: holds a run already; add --resume to continue it, or "
            "choose another --out"
        )
    if request.resume:
        changes = _changes(saved, recipe, request)
        recipe = saved.model_copy(update=changes)
        if changes:
            write_json(file, stamped(recipe.model_dump(mode="json"), request.task))
        return recipe
    write_json(file, stamped(recipe.model_dump(mode="json"), request.task))
    if recipe.model_dump(exclude=MAY_CHANGE) != saved.model_dump(exclude=MAY_CHANGE):
        # nothing was trained yet: plan anew for the new recipe
        (request.out / "plan.json").unlink(missing_ok=True)
    return recipe


def _require_same_part(request: RunRequest) -> None:
    """A run keeps its fold and task: under another fold its weights would be validated
    on what they were trained on.
    """
    wanted = RunFile(task=request.task, fold=request.fold)
    if started(request.out):
        saved = read_run(
            request.out
        )  # a run whose fold is not known is refused as well
        if saved != wanted:
            raise RecipeError(
                f"{request.out}: holds fold {saved.fold}, not {request.fold}; "
                "choose another --out"
            )
    else:
        write_run(wanted, request.out)


def _changes(saved: Recipe, asked: Recipe, request: RunRequest) -> dict[str, Any]:
    """Settings that were given and differ from those of the run; raises `RecipeError`
    for one that may not change.

    Compared as the recipe reads them: `dice+focal` is `{"dice": 1, "focal": 1}`.
    """
    if request.preset is not None and request.preset != saved.preset:
        raise RecipeError(
            f"{request.out}: was started with preset {saved.preset}, not "
            f"{request.preset}; resume without that option"
        )
    old = saved.model_dump(mode="json")
    new = asked.model_dump(mode="json")
    changes: dict[str, Any] = {}
    for key, value in json.loads(json.dumps(dict(request.overrides or {}))).items():
        part = isinstance(value, dict) and value.items() <= old[key].items()
        if old[key] == new[key] or part:
            continue
        if key not in ON_THE_WAY:
            before, now = _parts_that_differ(old.get(key), value)
            raise RecipeError(
                f"{request.out}: was started with {key}={before}, not {now}; "
                f"resume without that option ({few(ON_THE_WAY)} may change), or begin "
                f"a new run with --pretrained {request.out}"
            )
        changes[key] = new[key]
    if "epochs" in changes and "minutes" not in changes:
        changes["minutes"] = None  # epochs count only without
    return changes


def _parts_that_differ(before: Any, now: Any) -> tuple[Any, Any]:
    """Two values of a setting, of several parts those alone in which they differ."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return before, now
    names = [name for name, value in now.items() if before.get(name) != value]
    return {name: before.get(name) for name in names}, {n: now[n] for n in names}


def fold_folders(request: RunRequest, splits: Sequence[Split]) -> dict[int, Path]:
    """The folds to train and their folders; raises `RecipeError` for a fold that does
    not exist.
    """
    count = len(splits)
    if request.fold == "all":
        return {fold: request.out / f"fold{fold}" for fold in range(count)}
    if request.fold not in map(str, range(count)):
        raise no_such_fold(request.fold, count, splits[0].source)
    return {int(request.fold): request.out}


def require_declared_fold(request: RunRequest, dataset: Dataset) -> None:
    """Raise `RecipeError`, before anything is read, for a fold beyond those that the
    dataset declares.
    """
    count = len(dataset.folds)
    if count and request.fold not in ("all", *map(str, range(count))):
        raise no_such_fold(request.fold, count, dataset.folds_from)


def no_such_fold(fold: str, count: int, source: str) -> RecipeError:
    """The error that there is no such fold, with those that there are."""
    known = "0 is the only one" if count == 1 else f"choose 0 to {count - 1}, or all"
    return RecipeError(f"fold '{fold}' does not exist ({source}: {count}); {known}")


def train_fold(
    task: Task[PlanT, StoreT],
    prepared: Prepared[PlanT, StoreT],
    recipe: Recipe,
    folder: Path,
    *,
    fold: int,
    runtime: Runtime,
    console: Console,
    after_epoch: Callable[[], None],
) -> Progress:
    """Train one fold in `folder`, from its latest checkpoint if there is one."""
    seed_everything(recipe.seed, deterministic=recipe.deterministic)
    folder.mkdir(parents=True, exist_ok=True)
    split = prepared.splits[fold]
    network = task.network(prepared, recipe, split.train)
    resumable = surviving_folder(folder / "checkpoints" / "latest") is not None
    with run_log(folder, recipe, say=console.say) as log:
        if recipe.pretrained is not None and not resumable:
            start = Path(recipe.pretrained)
            channels = task.channels(prepared)
            start_from(
                network,
                start,
                folder,
                task=task.name,
                channels=channels,
                say=log.line,
            )
        micro_batch = task.micro_batch(prepared, recipe, runtime, log)
        chosen = recipe.model_copy(
            update={"micro_batch": micro_batch or recipe.micro_batch}
        )
        prepared = at_hand(prepared, chosen, runtime, split, log)
        trainer = Trainer(
            network=network,
            objective=task.objective(prepared, recipe, split.train),
            training=task.source(prepared, recipe, split.train, training=True),
            validation=task.source(prepared, recipe, split.validation, training=False),
            recipe=recipe,
            folder=folder,
            runtime=runtime,
            log=log,
            progress=Progress(micro_batch=micro_batch),
            show_steps=lambda steps, what, note: iter(
                console.track(steps, len(steps), what, note)
            ),
            after_epoch=after_epoch,
        )
        for warning in task.warnings(prepared.plan):
            log.line(f"warning: {warning}")
        begun = "continuing" if trainer.resume() else "training"
        log.line(
            f"{begun} at step {trainer.progress.step}: fold {fold} of "
            f"{len(prepared.splits)} ({split.source}), "
            f"{_circumstances(recipe, split, runtime)}"
        )
        return trainer.fit()


def _circumstances(recipe: Recipe, split: Split, runtime: Runtime) -> str:
    """Cases, length and machine of a training, for the log."""
    epochs = f"{recipe.epochs} epochs"
    budget = f"{recipe.minutes:g} minutes" if recipe.minutes else epochs
    ranks = f", {world_size()} ranks" if world_size() > 1 else ""
    return (
        f"{len(split.train)} cases, {len(split.validation)} held out, {budget}, "
        f"{runtime.device} {runtime.precision}{ranks}, "
        f"learning rate {recipe.learning_rate:g}"
    )
