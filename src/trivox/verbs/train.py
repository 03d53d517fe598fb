"""From a folder to a model: `trivox.train`, `trivox train`."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from trivox.config.choices import USUAL_TASK, PresetName, SplitRule, TaskName
from trivox.config.recipe import merged
from trivox.errors import UsageError
from trivox.evaluation.folders.measured import warnings_in
from trivox.evaluation.metrics.content import MetricsFile
from trivox.files import read_object, surviving_folder
from trivox.learning.checkpoints import STATE
from trivox.learning.progress import Progress, finite
from trivox.planning.cost import CostFile
from trivox.tasks.checking import set_aside_in
from trivox.tasks.choice import task_named, task_of
from trivox.tasks.console import Console
from trivox.tasks.cost.ledger import read_cost
from trivox.tasks.run import run_request
from trivox.tasks.stages import CHECK, read_run
from trivox.tasks.task import RunRequest
from trivox.verbs.folders import VALIDATED, require_prepared, require_run
from trivox.verbs.settings import (
    Settings,
    cost_settings,
    overrides,
    parsed,
    recipe_name,
    series_choice,
)
from trivox.verbs.texts import described

FOLD = re.compile(r"fold(\d{1,4})")
"""Folder of a fold where all are trained; copies beside it have other names."""


@dataclass(frozen=True)
class TrainedFold:
    """How the training of a fold went.

    epochs: that it was trained for; best_epoch: with the best smoothed score, 0 where
    none was measured; best: that score; seconds: of training.
    """

    fold: int
    folder: Path
    epochs: int
    best_epoch: int
    best: float | None
    seconds: float


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    metrics: content of `validation/metrics.json`; headline: its most important figures
    in one line. Both are empty on the other ranks of torchrun.
    """

    folder: Path
    metrics: MetricsFile = field(repr=False)
    headline: str

    @property
    def bundle(self) -> Path:
        """The folder that inference needs."""
        return self.folder / "bundle"

    @property
    def report(self) -> Path:
        """The page."""
        return self.folder / "report.html"

    @property
    def file(self) -> Path:
        """What holds the metrics."""
        return self.folder / VALIDATED

    @property
    def warnings(self) -> list[str]:
        """What a reader of the figures has to know."""
        return warnings_in(self.metrics)

    @property
    def set_aside(self) -> Mapping[str, str]:
        """Why cases were left out, by name."""
        return set_aside_in(self.folder / CHECK)

    @property
    def cost(self) -> CostFile | None:
        """What it has cost, and what was forecast; None where that was not recorded."""
        return read_cost(self.folder)

    @property
    def folds(self) -> tuple[TrainedFold, ...]:
        """How the training of each fold went."""
        return tuple(_folds(self.folder))


@described
def train(
    dataset: Path | str,
    out: Path | str,
    *,
    task: TaskName = USUAL_TASK,
    preset: PresetName | None = None,
    network: str | None = None,
    fold: int | str = "0",
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    patch_size: tuple[int, ...] | None = None,
    memory_gb: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    resume: bool = False,
    plan: Path | str | None = None,
    prepared: Path | str | None = None,
    recipe: Path | str | None = None,
    pretrained: Path | str | None = None,
    freeze_encoder: bool = False,
    classes: Path | str | None = None,
    clinical: str | None = None,
    split_by: SplitRule | None = None,
    set: Settings = None,
    series: str | None = None,
    slice_tolerance: float | None = None,
    watts_per_core: float | None = None,
    price_per_hour: float | None = None,
    price_per_kwh: float | None = None,
    console: Console | None = None,
) -> TrainedRun:
    """Check, plan, preprocess, train, validate and report: from a folder to a model in
    one command.

    Finished stages in `out` are reused. Raises `DataError` if training on the dataset
    would be wrong, `RecipeError` for settings that do not exist or contradict each
    other, `PlanError` for a plan that cannot be.
    """
    require_run(Path(out), Path(dataset))
    if prepared is not None:
        require_prepared(Path(prepared))
    start = None if pretrained is None else str(Path(pretrained).absolute())
    settings = overrides(
        recipe,
        with_clinical_columns(set, clinical, task),
        network=network,
        epochs=epochs,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=lr,
        patch_size=patch_size,
        memory_gb=memory_gb,
        seed=seed,
        split_by=split_by,
        freeze_encoder=1.0 if freeze_encoder else None,
        pretrained=start,
    )
    request = RunRequest(
        dataset=Path(dataset),
        out=Path(out),
        preset=preset,
        overrides=settings,
        fold=str(fold),
        task=task,
        device=device,
        resume=resume,
        plan=None if plan is None else Path(plan),
        prepared=None if prepared is None else Path(prepared),
        named=recipe_name(recipe),
        classes=None if classes is None else Path(classes),
        choice=series_choice(series, slice_tolerance),
        cost=cost_settings(watts_per_core, price_per_hour, price_per_kwh),
    )
    metrics = cast(MetricsFile, run_request(request, console=console))
    headline = task_of(metrics).headline(metrics) if metrics else ""
    return TrainedRun(request.out, metrics, headline)


def with_clinical_columns(
    settings: Settings, columns: str | None, task: TaskName
) -> Settings:
    """Settings and the clinical columns to read, with commas between."""
    if columns is None:
        return settings
    names = [name.strip() for name in columns.split(",") if name.strip()]
    if not names or not task_named(task).learns_classes:
        raise UsageError(
            f"--clinical {columns}: name columns that a model with classes reads, for "
            "example --task multitask --clinical age,sex"
        )
    return merged(parsed(settings), {"classification": {"clinical": names}})


def _folds(run: Path) -> Iterator[TrainedFold]:
    """The folds that were trained, by what their last checkpoints say."""
    for fold, folder in sorted(_folders(run).items()):
        latest = surviving_folder(folder / "checkpoints" / "latest")
        if latest is None:
            continue
        progress = Progress.restored(read_object(latest / STATE)["progress"])
        yield TrainedFold(
            fold,
            folder,
            epochs=progress.epoch,
            best_epoch=progress.best_epoch,
            best=finite(progress.best),
            seconds=progress.seconds,
        )


def _folders(run: Path) -> dict[int, Path]:
    """Where folds were trained, by number: in the run itself, or each below it."""
    fold = read_run(run).fold
    if fold.isdecimal():
        return {int(fold): run}
    matches = [(FOLD.fullmatch(each.name), each) for each in run.iterdir()]
    return {int(match[1]): folder for match, folder in matches if match}
