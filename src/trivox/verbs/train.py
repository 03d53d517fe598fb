"""The run: prepare, train a fold, put the bundle together, validate, report.

One call from folder to model.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.distributed as dist

from trivox.config.recipe import Recipe, read_recipe
from trivox.datasets.splits import Split
from trivox.errors import FormatError, RecipeError
from trivox.files import read_json, surviving_folder, write_json
from trivox.learning.progress import Progress
from trivox.learning.runtime import (
    Runtime,
    make_runtime,
    process_group,
    rank,
    seed_everything,
    world_size,
)
from trivox.learning.tracking import run_log
from trivox.learning.trainer import Trainer
from trivox.tasks.console import Console, Quiet
from trivox.tasks.labels.multitask import MultitaskTask
from trivox.tasks.labels.segmentation import SegmentationTask
from trivox.tasks.reconstruction.task import ReconstructionTask
from trivox.tasks.stages import recipe_for, started
from trivox.tasks.start import require_start, start_from
from trivox.tasks.task import P, RunRequest, Task

TASKS: dict[str, Task[Any]] = {
    "segmentation": SegmentationTask(),
    "multitask": MultitaskTask(),
    "reconstruction": ReconstructionTask(),
}


def train(request: RunRequest, *, console: Console | None = None) -> Mapping[str, Any]:
    """Everything from the folder to the report; returns the content of
    `validation/metrics.json`.

    Finished stages are reused. Under torchrun all ranks train, rank 0 does the rest.
    """
    if request.task not in TASKS:
        raise RecipeError(
            f"task '{request.task}' does not exist; choose one of {', '.join(TASKS)}"
        )
    if not request.dataset.exists():  # before anything is written
        raise FormatError(f"{request.dataset}: not found; check the path")
    if not started(request.out):
        require_start(asked_recipe(request))
    recipe = settle_recipe(request)
    runtime = make_runtime(request.device, recipe.precision)
    with process_group(runtime.device):
        console = console if console is not None and rank() == 0 else Quiet()
        task = TASKS[request.task]
        prepared = _prepare(task, request, recipe, runtime, console)
        folds = fold_numbers(request.fold, len(prepared.splits))
        folders = {
            fold: request.out / f"fold{fold}" if request.fold == "all" else request.out
            for fold in folds
        }
        for fold, folder in folders.items():
            train_fold(
                task,
                prepared,
                recipe,
                folder,
                fold=fold,
                runtime=runtime,
                console=console,
            )
        if rank() != 0:
            return {}
        return task.finish(request, recipe, prepared, folders, console)


def asked_recipe(request: RunRequest) -> Recipe:
    """The recipe of a request."""
    named = request.named or (
        TASKS[request.task].recipe if request.task in TASKS else None
    )
    return recipe_for(
        request.preset, request.overrides, device=request.device, named=named
    )


def settle_recipe(request: RunRequest) -> Recipe:
    """The recipe of a new run, or the saved one when resuming; a run is never continued
    under other settings.
    """
    file = request.out / "recipe.json"
    _require_same_part(request)
    recipe = asked_recipe(request)
    if not file.exists():
        write_json(file, recipe.model_dump(mode="json")) if rank() == 0 else None
        return recipe
    saved = read_recipe(read_json(file))
    if started(request.out) and not request.resume:
        raise RecipeError(
            f"{request.out}: holds a run already; add --resume to continue it, or choose another --out"
        )
    if request.resume:
        _require_same(saved, recipe, request)
        return saved
    write_json(file, recipe.model_dump(mode="json"))
    if recipe.model_dump(exclude={"epochs", "minutes", "seed"}) != saved.model_dump(
        exclude={"epochs", "minutes", "seed"}
    ):
        (request.out / "plan.json").unlink(
            missing_ok=True
        )  # nothing was trained yet: plan anew for the new recipe
    return recipe


def _require_same_part(request: RunRequest) -> None:
    """A run keeps its fold and task: under another fold its weights would be validated
    on what they were trained on.
    """
    file, wanted = (
        request.out / "run.json",
        {"fold": request.fold, "task": request.task},
    )
    if started(request.out):
        kept = read_json(file)  # a run whose fold is not known is refused as well
        if kept != wanted:
            raise RecipeError(
                f"{request.out}: holds fold {kept.get('fold')}, not {request.fold}; choose another --out"
            )
    elif rank() == 0:
        write_json(file, wanted)


def _require_same(saved: Recipe, asked: Recipe, request: RunRequest) -> None:
    """Compared as the recipe reads them: `dice+focal` is `{"dice": 1, "focal": 1}`."""
    kept, meant = saved.model_dump(mode="json"), asked.model_dump(mode="json")
    for key, value in json.loads(json.dumps(dict(request.overrides or {}))).items():
        same = kept[key] == meant[key] or (
            isinstance(value, dict) and value.items() <= kept[key].items()
        )
        if not same:
            raise RecipeError(
                f"{request.out}: was started with {key}={kept.get(key)}, not {value}; resume without that option"
            )


def fold_numbers(fold: str, count: int) -> list[int]:
    """The folds to train; raises `RecipeError` for one that does not exist."""
    if fold == "all":
        return list(range(count))
    if not fold.isdigit() or int(fold) >= count:
        raise RecipeError(
            f"fold '{fold}' does not exist; choose 0 to {count - 1}, or all"
        )
    return [int(fold)]


def _prepare(
    task: Task[Any],
    request: RunRequest,
    recipe: Recipe,
    runtime: Runtime,
    console: Console,
) -> Any:
    """Rank 0 works, the others wait and then read what it left."""
    if rank() != 0:
        dist.barrier()
    prepared = task.prepare(request, recipe, runtime, console)
    if rank() == 0 and world_size() > 1:
        dist.barrier()
    return prepared


def train_fold(
    task: Task[P],
    prepared: P,
    recipe: Recipe,
    folder: Path,
    *,
    fold: int,
    runtime: Runtime,
    console: Console,
) -> Progress:
    """Train one fold in `folder`, from its latest checkpoint if there is one."""
    seed_everything(recipe.seed, deterministic=recipe.deterministic)
    folder.mkdir(parents=True, exist_ok=True)
    split = prepared.splits[fold]
    network = task.network(prepared, recipe, split.train)
    with run_log(folder, recipe, say=console.say) as log:
        if (
            recipe.pretrained is not None
            and surviving_folder(folder / "checkpoints" / "latest") is None
        ):
            start_from(
                network,
                Path(recipe.pretrained),
                folder,
                channels=task.channels(prepared),
                say=log.line,
            )
        micro_batch = task.micro_batch(prepared, recipe, runtime, log)
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
            show_steps=lambda steps, what: _steps(console, steps, what),
        )
        begun = "continuing" if trainer.resume() else "training"
        log.line(
            f"{begun} at step {trainer.progress.step}: fold {fold}, {_circumstances(recipe, split, runtime)}"
        )
        return trainer.fit()


def _circumstances(recipe: Recipe, split: Split, runtime: Runtime) -> str:
    """Cases, length and machine of a training, for the log."""
    budget = (
        f"{recipe.minutes:g} minutes" if recipe.minutes else f"{recipe.epochs} epochs"
    )
    machine = f"{runtime.device} {runtime.precision}" + (
        f", {world_size()} ranks" if world_size() > 1 else ""
    )
    return f"{len(split.train)} cases, {len(split.validation)} held out, {budget}, {machine}"


def _steps(console: Console, steps: Sequence[int], what: str) -> Iterator[int]:
    return iter(console.track(steps, len(steps), what))
