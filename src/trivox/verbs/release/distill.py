"""A small model from a large one: `trivox.distill`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trivox.config.choices import PresetName
from trivox.config.options import DistillationOptions
from trivox.config.recipe import merged
from trivox.datasets.layouts.choice import load_dataset
from trivox.datasets.splits import dataset_splits
from trivox.errors import BundleError
from trivox.inference.bundle import LabelBundle, model_paths
from trivox.learning.runtime import launched_rank
from trivox.tasks.console import Console
from trivox.tasks.labels.teachers import read_teachers, voters
from trivox.tasks.stages import FOLDS
from trivox.verbs.folders import require_run
from trivox.verbs.settings import Settings, parsed
from trivox.verbs.texts import described
from trivox.verbs.train import TrainedRun, train

SMALL = "unet-tiny"


@described
def distill(
    model: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    network: str | None = None,
    dataset: Path | str | None = None,
    unlabelled: Path | str | None = None,
    temperature: float | None = None,
    teacher_weight: float | None = None,
    fold: int | str | None = None,
    preset: PresetName | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    resume: bool = False,
    recipe: Path | str | None = None,
    set: Settings = None,
    console: Console | None = None,
) -> TrainedRun:
    """Train a small network on labels and on the answers of a trained model, which looks
    at the same patches.

    Without `fold` all networks of the model teach one student; with one, each fold learns
    from its own network alone, so that no teacher has seen the cases that are held out.
    Raises `BundleError` for a model that cannot teach, `PlanError` for one of other
    labels than the dataset's, and what `trivox.train` raises.
    """
    paths = [path.absolute() for path in model_paths(model)]
    teachers = DistillationOptions(teachers=tuple(str(path) for path in paths))
    bundles = read_teachers(teachers)
    for bundle in bundles:
        require_run(Path(out), bundle.run or bundle.folder)
    source = _cases_of(bundles) if dataset is None else Path(dataset)
    networks = "all" if fold is None else "fold"
    options = teachers.model_copy(update={"networks": networks})
    _require_networks(bundles, options, source, fold)
    asked: dict[str, Any] = {
        "teachers": list(options.teachers),
        "identities": [bundle.identity for bundle in bundles],
        "networks": networks,
        "unlabelled": None if unlabelled is None else str(Path(unlabelled).absolute()),
        "temperature": temperature,
        "weight": teacher_weight,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    settings = merged(parsed(set), {"distillation": given})
    if network is None and not resume:
        settings = merged({"network": SMALL}, settings)
    if console is not None and launched_rank() == 0:
        console.say(_teaching(bundles, options, fold))
    return train(
        source,
        out,
        task=bundles[0].description.task,  # type: ignore[arg-type]
        preset=preset,
        network=network,
        fold=_first_fold(bundles) if fold is None else fold,
        epochs=epochs,
        minutes=minutes,
        batch_size=batch_size,
        lr=lr,
        device=device,
        seed=seed,
        resume=resume,
        recipe=recipe,
        set=settings,
        console=console,
    )


def _cases_of(bundles: Sequence[LabelBundle]) -> Path:
    """The saved dataset of the first model; raises `BundleError` where there is none."""
    run = bundles[0].run
    if run is None:
        raise BundleError(
            f"{bundles[0].folder}: lies in no run that says what it was trained on; name "
            "the cases to learn from with --dataset"
        )
    return run / "dataset.json"


def _first_fold(bundles: Sequence[LabelBundle]) -> str:
    """The fold whose cases are left out where all networks teach."""
    fold = bundles[0].description.weights[0].fold
    return fold if fold.isdecimal() else "0"


def _require_networks(
    bundles: Sequence[LabelBundle],
    options: DistillationOptions,
    source: Path,
    fold: int | str | None,
) -> None:
    """Raise before anything is trained where a fold has no network that teaches it."""
    folds: Sequence[int | str] = [] if fold is None else [fold]
    if fold == "all":
        folds = range(len(dataset_splits(load_dataset(source), folds=FOLDS)))
    for each in folds:
        voters(bundles, options, each)


def _teaching(
    bundles: Sequence[LabelBundle], options: DistillationOptions, fold: int | str | None
) -> str:
    """Who teaches, in one line."""
    count = sum(len(bundle.description.weights) for bundle in bundles)
    who = ", ".join(options.teachers)
    if fold is None:
        networks = "1 network" if count == 1 else f"{count} networks"
        return f"taught by {networks} of {who}"
    return f"each fold is taught by its own network of {who}"
