"""The run: prepare, train a fold, put the bundle together, validate, report. One call from folder to model."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from trivox.config import Recipe, read_recipe
from trivox.datasets.class_tables import with_classes
from trivox.datasets.dataset import Dataset
from trivox.datasets.splits import Split
from trivox.errors import FormatError, RecipeError
from trivox.files import read_json, surviving_folder, write_json
from trivox.inference.bundle import write_bundle
from trivox.learning.checkpoints import final_weights
from trivox.learning.progress import Progress
from trivox.learning.runtime import Runtime, make_runtime, process_group, rank, seed_everything, world_size
from trivox.learning.tracking import run_log
from trivox.learning.trainer import Trainer
from trivox.preparation.batches import BatchSource
from trivox.preparation.sampler import PatchSampler
from trivox.tasks.classifying import FoldAnswers, class_answers, fit_fold
from trivox.tasks.console import Console, Quiet
from trivox.tasks.forecasting import forecast_training
from trivox.tasks.multitask import MultitaskTask
from trivox.tasks.preparing import Prepared, prepare_run, recipe_for, started
from trivox.tasks.reporting import report_run
from trivox.tasks.segmentation import SegmentationTask
from trivox.tasks.starting import require_start, start_from
from trivox.tasks.validating import fold_predictor, validate_folds

TRAINING, VALIDATION = 0, 1
"""Streams of random numbers."""

TASKS: dict[str, SegmentationTask] = {"segmentation": SegmentationTask(), "multitask": MultitaskTask()}


@dataclass(frozen=True)
class RunRequest:
    """What `trivox train` was asked to do. `fold` is a number, or "all" for every fold.

    preset: None: by the machine; named: a recipe for a kind of data; classes: a table with the class of each case.
    """

    dataset: Path
    out: Path
    preset: str | None = None
    overrides: Mapping[str, Any] | None = None
    fold: str = "0"
    task: str = "segmentation"
    device: str = "auto"
    resume: bool = False
    plan: Path | None = None
    prepared: Path | None = None
    named: str | None = None
    classes: Path | None = None


def train(request: RunRequest, *, console: Console | None = None) -> dict[str, Any]:
    """Everything from the folder to the report; returns the content of `validation/metrics.json`.

    Finished stages are reused. Under torchrun all ranks train, rank 0 does the rest.
    """
    if request.task not in TASKS:
        raise RecipeError(f"task '{request.task}' does not exist; choose one of {', '.join(TASKS)}")
    if not request.dataset.exists():  # before anything is written
        raise FormatError(f"{request.dataset}: not found; check the path")
    if not started(request.out):
        require_start(asked_recipe(request))
    recipe = settle_recipe(request)
    runtime = make_runtime(request.device, recipe.precision)
    with process_group(runtime.device):
        console = console if console is not None and rank() == 0 else Quiet()
        prepared = _prepare(request, recipe, runtime, console)
        folds = fold_numbers(request.fold, len(prepared.splits))
        folders = {fold: request.out / f"fold{fold}" if request.fold == "all" else request.out for fold in folds}
        for fold, folder in folders.items():
            train_fold(prepared, recipe, folder, fold=fold, runtime=runtime, task=request.task, console=console)
        if rank() != 0:
            return {}
        return _finish(request, recipe, prepared, folders, console)


def asked_recipe(request: RunRequest) -> Recipe:
    """The recipe of a request."""
    return recipe_for(request.preset, request.overrides, device=request.device, named=request.named)


def settle_recipe(request: RunRequest) -> Recipe:
    """The recipe of a new run, or the saved one when resuming; a run is never continued under other settings."""
    file = request.out / "recipe.json"
    _require_same_part(request)
    recipe = asked_recipe(request)
    if not file.exists():
        write_json(file, recipe.model_dump(mode="json")) if rank() == 0 else None
        return recipe
    saved = read_recipe(read_json(file))
    if started(request.out) and not request.resume:
        raise RecipeError(f"{request.out}: holds a run already; add --resume to continue it, or choose another --out")
    if request.resume:
        _require_same(saved, recipe, request)
        return saved
    write_json(file, recipe.model_dump(mode="json"))
    if recipe.model_dump(exclude={"epochs", "minutes", "seed"}) != saved.model_dump(
        exclude={"epochs", "minutes", "seed"}
    ):
        (request.out / "plan.json").unlink(missing_ok=True)  # nothing was trained yet: plan anew for the new recipe
    return recipe


def _require_same_part(request: RunRequest) -> None:
    """A run keeps its fold and task: under another fold its weights would be validated on what they were trained on."""
    file, wanted = request.out / "run.json", {"fold": request.fold, "task": request.task}
    if started(request.out):
        kept = read_json(file)  # a run whose fold is not known is refused as well
        if kept != wanted:
            raise RecipeError(f"{request.out}: holds fold {kept.get('fold')}, not {request.fold}; choose another --out")
    elif rank() == 0:
        write_json(file, wanted)


def _require_same(saved: Recipe, asked: Recipe, request: RunRequest) -> None:
    """Compared as the recipe reads them: `dice+focal` is `{"dice": 1, "focal": 1}`."""
    kept, meant = saved.model_dump(mode="json"), asked.model_dump(mode="json")
    for key, value in json.loads(json.dumps(dict(request.overrides or {}))).items():
        same = kept[key] == meant[key] or (isinstance(value, dict) and value.items() <= kept[key].items())
        if not same:
            raise RecipeError(
                f"{request.out}: was started with {key}={kept.get(key)}, not {value}; resume without that option"
            )


def fold_numbers(fold: str, count: int) -> list[int]:
    """The folds to train; raises `RecipeError` for one that does not exist."""
    if fold == "all":
        return list(range(count))
    if not fold.isdigit() or int(fold) >= count:
        raise RecipeError(f"fold '{fold}' does not exist; choose 0 to {count - 1}, or all")
    return [int(fold)]


def _prepare(request: RunRequest, recipe: Recipe, runtime: Runtime, console: Console) -> Prepared:
    """Rank 0 works, the others wait and then read what it left."""
    if rank() != 0:
        dist.barrier()
    prepared = prepare_run(
        request.dataset, request.out, recipe, runtime=runtime, fit=partial(_fit_dataset, request=request),
        plan_file=request.plan, prepared=request.prepared, console=console,
    )  # fmt: skip
    if rank() == 0 and world_size() > 1:
        dist.barrier()
    return prepared


def _fit_dataset(dataset: Dataset, *, request: RunRequest) -> Dataset:
    """The dataset with the classes of a table, as the task learns from it."""
    return TASKS[request.task].dataset(dataset if request.classes is None else with_classes(dataset, request.classes))


def train_fold(
    prepared: Prepared,
    recipe: Recipe,
    folder: Path,
    *,
    fold: int,
    runtime: Runtime,
    task: str = "segmentation",
    console: Console,
) -> Progress:
    """Train one fold in `folder`, from its latest checkpoint if there is one."""
    seed_everything(recipe.seed, deterministic=recipe.deterministic)
    folder.mkdir(parents=True, exist_ok=True)
    plan, split = prepared.plan, prepared.splits[fold]
    kind = TASKS[task]
    network = kind.network(prepared, recipe)
    with run_log(folder, recipe, say=console.say) as log:
        if recipe.pretrained is not None and surviving_folder(folder / "checkpoints" / "latest") is None:
            start_from(network, Path(recipe.pretrained), folder, channels=len(plan.inputs), say=log.line)
        training = kind.source(batch_source(prepared, recipe, split.train, training=True), prepared, recipe)
        validation = batch_source(prepared, recipe, split.validation, training=False)
        micro_batch = forecast_training(plan, recipe, runtime, batch=len(training.positions), log=log)
        trainer = Trainer(
            network=network,
            objective=kind.objective(prepared, recipe, split.train),
            training=training,
            validation=kind.source(validation, prepared, recipe),
            recipe=recipe,
            folder=folder,
            runtime=runtime,
            log=log,
            progress=Progress(micro_batch=micro_batch),
            show_steps=lambda steps, what: _steps(console, steps, what),
        )
        begun = "continuing" if trainer.resume() else "training"
        log.line(f"{begun} at step {trainer.progress.step}: fold {fold}, {_circumstances(recipe, split, runtime)}")
        return trainer.fit()


def _circumstances(recipe: Recipe, split: Split, runtime: Runtime) -> str:
    """Cases, length and machine of a training, for the log."""
    budget = f"{recipe.minutes:g} minutes" if recipe.minutes else f"{recipe.epochs} epochs"
    machine = f"{runtime.device} {runtime.precision}" + (f", {world_size()} ranks" if world_size() > 1 else "")
    return f"{len(split.train)} cases, {len(split.validation)} held out, {budget}, {machine}"


def _steps(console: Console, steps: Sequence[int], what: str) -> Iterator[int]:
    return iter(console.track(steps, len(steps), what))


def batch_source(prepared: Prepared, recipe: Recipe, names: Sequence[str], *, training: bool) -> BatchSource:
    """Batches of the named cases; each rank takes every `world_size`-th sample of the global batch."""
    plan, ranks = prepared.plan, world_size()
    batch = recipe.batch_size or plan.batch_size
    batch = -(-batch // ranks) * ranks  # equal shares, so that the mean over ranks is the mean over samples
    sampler = PatchSampler(prepared.store, names, plan.patch_size, batch, recipe.foreground_fraction)
    return BatchSource(
        sampler=sampler,
        seed=recipe.seed,
        spacing=plan.spacing,
        positions=range(rank(), batch, ranks),
        augmentation=recipe.augmentation if training else None,
        stream=TRAINING if training else VALIDATION,
        masks=int(plan.mask_channel),
    )


def _finish(
    request: RunRequest, recipe: Recipe, prepared: Prepared, folders: dict[int, Path], console: Console
) -> dict[str, Any]:
    """Bundle, validation on the source images, postprocessing chosen there, report."""
    weights = {
        str(fold): final_weights(folder / "checkpoints", recipe.final_weights) for fold, folder in folders.items()
    }
    summary = {
        "dataset": prepared.dataset.name,
        "folds": {str(fold): len(prepared.splits[fold].train) for fold in folders},
        "recipe": recipe.model_dump(mode="json"),
    }
    answers = _fit_answers(request, recipe, prepared, folders, weights, console)
    validation = validate_folds(
        prepared, recipe, weights, request.out / "validation", answers=answers, device=request.device, console=console
    )
    classes = class_answers(prepared, recipe, temperature=validation.head_temperature) if answers else None
    write_bundle(
        request.out / "bundle", plan=prepared.plan, weights=weights, overlap=recipe.overlap,
        mirror_axes=recipe.augmentation.mirror_axes if recipe.mirrored_inference else (),
        postprocessing=validation.postprocessing, temperature=validation.trust.temperature,
        abstention=validation.trust.abstention, classification=classes,
        classifiers={fold: found.file for fold, found in answers.items() if found.file is not None},
        training={**summary, "validation": validation.metrics["summary"]},
    )  # fmt: skip
    report_run(request.out, console=console, log_folder=next(iter(folders.values())))
    return validation.metrics


def _fit_answers(
    request: RunRequest,
    recipe: Recipe,
    prepared: Prepared,
    folders: Mapping[int, Path],
    weights: Mapping[str, Path],
    console: Console,
) -> dict[str, FoldAnswers]:
    """How each fold answers with the class of a case; nothing where there are no classes to learn."""
    if request.task != "multitask":
        return {}
    found = {}
    for fold, folder in folders.items():
        predictor = fold_predictor(prepared, recipe, str(fold), weights[str(fold)], request.device)
        found[str(fold)] = fit_fold(prepared, recipe, predictor, folder, fold=str(fold), console=console)
    return found
