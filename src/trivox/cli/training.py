"""Commands that make models: train, pretrain, demo."""

from pathlib import Path
from typing import Annotated, Any

import typer

from trivox.cli.answers import answers
from trivox.cli.cost_options import PricePerHour, PricePerKwh, Watts
from trivox.cli.options import (
    Classes,
    DatasetPath,
    Device,
    Epochs,
    MemoryGb,
    Minutes,
    Network,
    PatchSize,
    Preset,
    RecipeName,
    Resume,
    Seed,
    Settings,
    argument,
    option,
)
from trivox.cli.reading_options import Series, SliceTolerance
from trivox.cli.terminal import Terminal, remark, say
from trivox.config.choices import (
    USUAL_DEMO,
    USUAL_TASK,
    DemoName,
    PresetName,
    SplitRule,
    TaskName,
)


@answers("train")
def train(
    dataset: DatasetPath,
    out: Annotated[Path, option("train", "out")],
    task: Annotated[TaskName, option("train", "task")] = USUAL_TASK,
    preset: Preset = None,
    network: Network = None,
    fold: Annotated[str, option("train", "fold")] = "0",
    epochs: Epochs = None,
    minutes: Minutes = None,
    batch_size: Annotated[int | None, option("train", "batch_size")] = None,
    lr: Annotated[float | None, option("train", "lr")] = None,
    patch_size: PatchSize = None,
    memory_gb: MemoryGb = None,
    device: Device = "auto",
    seed: Seed = None,
    resume: Resume = False,
    plan: Annotated[Path | None, option("train", "plan")] = None,
    prepared: Annotated[Path | None, option("train", "prepared")] = None,
    recipe: RecipeName = None,
    pretrained: Annotated[Path | None, option("train", "pretrained")] = None,
    freeze_encoder: Annotated[bool, option("train", "freeze_encoder")] = False,
    classes: Classes = None,
    clinical: Annotated[str | None, option("train", "clinical")] = None,
    split_by: Annotated[SplitRule | None, option("train", "split_by")] = None,
    set: Settings = None,
    series: Series = None,
    slice_tolerance: SliceTolerance = None,
    watts_per_core: Watts = None,
    price_per_hour: PricePerHour = None,
    price_per_kwh: PricePerKwh = None,
) -> Any:
    """Check, plan, preprocess, train, validate and report: from a folder to a model in
    one command.
    """
    from trivox.verbs.train import train as run

    trained = run(
        dataset,
        out,
        task=task,
        preset=preset,
        network=network,
        fold=fold,
        epochs=epochs,
        minutes=minutes,
        batch_size=batch_size,
        lr=lr,
        patch_size=patch_size,
        memory_gb=memory_gb,
        device=device,
        seed=seed,
        resume=resume,
        plan=plan,
        prepared=prepared,
        recipe=recipe,
        pretrained=pretrained,
        freeze_encoder=freeze_encoder,
        classes=classes,
        clinical=clinical,
        split_by=split_by,
        set=set,
        series=series,
        slice_tolerance=slice_tolerance,
        watts_per_core=watts_per_core,
        price_per_hour=price_per_hour,
        price_per_kwh=price_per_kwh,
        console=Terminal(),
    )
    say_trained(trained)
    return trained


def say_trained(trained: Any) -> None:
    """The figures of a finished run, and where its model lies."""
    if trained.metrics:
        say(trained.headline)
        for warning in trained.metrics.get("warnings", ()):
            remark(f"warning: {warning}")
        say(f"model: {trained.bundle}")


@answers("pretrain")
def pretrain(
    images: Annotated[Path, argument("pretrain", "images")],
    out: Annotated[Path, option("pretrain", "out")],
    preset: Preset = None,
    network: Network = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    patch_size: PatchSize = None,
    memory_gb: MemoryGb = None,
    device: Device = "auto",
    seed: Seed = None,
    resume: Resume = False,
    set: Settings = None,
    series: Series = None,
    slice_tolerance: SliceTolerance = None,
) -> Any:
    """Learn from images without labels, by restoring hidden blocks; 'train
    --pretrained' starts from the result.
    """
    from trivox.verbs.pretrain import pretrain as run

    pretraining = run(
        images,
        out,
        preset=preset,
        network=network,
        epochs=epochs,
        minutes=minutes,
        patch_size=patch_size,
        memory_gb=memory_gb,
        device=device,
        seed=seed,
        resume=resume,
        set=set,
        series=series,
        slice_tolerance=slice_tolerance,
        console=Terminal(),
    )
    facts = pretraining.facts
    if facts:
        r2 = facts["validation_r2"]
        score = "not measured"
        if r2 is not None:
            score = f"{r2:.3f} (1 is perfect, 0 is the mean)"
        cases = len(facts["held_out"])
        say(f"R2 of hidden voxels in {cases} held-out cases: {score}")
        say(
            f"next: trivox train DATASET --out RUN --network {facts['network']} "
            f"--pretrained {out}"
        )
    return pretraining


@answers("demo")
def demo(
    what: Annotated[DemoName, typer.Argument(help="what to show")] = USUAL_DEMO,
    out: Annotated[Path, typer.Option("--out", help="folder of the demo")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[float, typer.Option("--minutes", help="of training")] = 2.0,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="a dataset to use instead of generated phantoms"),
    ] = None,
    preset: Annotated[
        PresetName, typer.Option("--preset", help="scaled down to a CPU")
    ] = "quick_test",
    device: Device = "auto",
) -> Any:
    """Show the whole way in a few minutes: generate phantoms (or take --data), train,
    predict, evaluate, report.

    Presets other than quick_test are scaled down to a CPU.
    """
    from trivox.verbs.demo import demo as run

    return run(
        what,
        out=out,
        minutes=minutes,
        data=data,
        preset=preset,
        device=device,
        console=Terminal(),
    )
