"""From a folder to a model: `trivox.train`, `trivox train`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from trivox.config.choices import USUAL_TASK, PresetName, TaskName
from trivox.evaluation.metrics.content import MetricsFile
from trivox.tasks.choice import task_of
from trivox.tasks.console import Console
from trivox.tasks.run import run_request
from trivox.tasks.task import RunRequest
from trivox.verbs.settings import Settings, overrides, recipe_name, series_choice
from trivox.verbs.texts import described


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
    set: Settings = None,
    series: str | None = None,
    slice_tolerance: float | None = None,
    console: Console | None = None,
) -> TrainedRun:
    """Check, plan, preprocess, train, validate and report: from a folder to a model in
    one command.

    Finished stages in `out` are reused. Raises `DataError` if training on the dataset
    would be wrong, `RecipeError` for settings that do not exist or contradict each
    other, `PlanError` for a plan that cannot be.
    """
    start = None if pretrained is None else str(Path(pretrained).absolute())
    settings = overrides(
        recipe,
        set,
        network=network,
        epochs=epochs,
        minutes=minutes,
        batch_size=batch_size,
        learning_rate=lr,
        patch_size=patch_size,
        memory_gb=memory_gb,
        seed=seed,
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
    )
    metrics = cast(MetricsFile, run_request(request, console=console))
    headline = task_of(metrics).headline(metrics) if metrics else ""
    return TrainedRun(request.out, metrics, headline)
