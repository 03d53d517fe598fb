"""Commands that bring a trained model to those who use it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from trivox.cli.answers import answers
from trivox.cli.options import (
    Device,
    Epochs,
    Minutes,
    Preset,
    RecipeName,
    Resume,
    Seed,
    Settings,
    argument,
    option,
)
from trivox.cli.terminal import Terminal, say
from trivox.cli.training import say_trained
from trivox.config.choices import ExportPrecision, ExportTarget


@answers("export")
def export(
    model: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="run(s), bundle(s) or names that 'trivox models' lists; several vote",
        ),
    ],
    to: Annotated[ExportTarget, option("export", "to")],
    out: Annotated[Path, option("export", "out")],
    precision: Annotated[ExportPrecision, option("export", "precision")] = "fp32",
    calibrate: Annotated[Path | None, option("export", "calibrate")] = None,
    verify: Annotated[Path | None, option("export", "verify")] = None,
    accept_loss: Annotated[bool, option("export", "accept_loss")] = False,
    assets: Annotated[Path | None, option("export", "assets")] = None,
) -> Any:
    """Write a model for programs that know nothing of trivox, tried before it is kept."""
    from trivox.verbs.release.export import export as run

    exported = run(
        model,
        out,
        to=to,
        precision=precision,
        calibrate=calibrate,
        verify=verify,
        accept_loss=accept_loss,
        assets=assets,
        console=Terminal(),
    )
    for line in exported.lines:
        say(line)
    return exported


@answers("distill")
def distill(
    model: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="run or bundle folder(s) that teach; several vote",
        ),
    ],
    out: Annotated[Path, option("distill", "out")],
    network: Annotated[str | None, option("distill", "network")] = None,
    dataset: Annotated[Path | None, option("distill", "dataset")] = None,
    unlabelled: Annotated[Path | None, option("distill", "unlabelled")] = None,
    temperature: Annotated[float | None, option("distill", "temperature")] = None,
    teacher_weight: Annotated[float | None, option("distill", "teacher_weight")] = None,
    fold: Annotated[str | None, option("distill", "fold")] = None,
    preset: Preset = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    batch_size: Annotated[int | None, option("distill", "batch_size")] = None,
    lr: Annotated[float | None, option("distill", "lr")] = None,
    device: Device = "auto",
    seed: Seed = None,
    resume: Resume = False,
    recipe: RecipeName = None,
    set: Settings = None,
) -> Any:
    """Train a small network on labels and on the answers of a trained model, which looks
    at the same patches.
    """
    from trivox.verbs.release.distill import distill as run

    trained = run(
        model,
        out,
        network=network,
        dataset=dataset,
        unlabelled=unlabelled,
        temperature=temperature,
        teacher_weight=teacher_weight,
        fold=fold,
        preset=preset,
        epochs=epochs,
        minutes=minutes,
        batch_size=batch_size,
        lr=lr,
        device=device,
        seed=seed,
        resume=resume,
        recipe=recipe,
        set=set,
        console=Terminal(),
    )
    say_trained(trained)
    return trained


@answers("verify")
def verify(source: Annotated[Path, argument("verify", "source")]) -> Any:
    """Compare every number of a run or a metrics.json with the files that it is of."""
    from trivox.verbs.release.verify import verify as run

    return run(source, console=Terminal())
