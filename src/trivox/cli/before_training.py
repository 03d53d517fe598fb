"""Commands before training: import, check, plan, preprocess, drr."""

import sys
from collections.abc import Sequence
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
    Out,
    PatchSize,
    Preset,
    RecipeName,
    Settings,
    argument,
    named_values,
    option,
)
from trivox.cli.reading_options import Series, SliceTolerance
from trivox.cli.terminal import Terminal, for_people, remark, say
from trivox.config.choices import (
    BratsFormat,
    CheckpointName,
    ClassFoldersFormat,
    TaskName,
    ViewFormat,
)
from trivox.errors import DataError, visible


@answers("import nnunet")
def import_nnunet(
    folder: Annotated[
        Path,
        typer.Argument(
            help="folder that nnU-Net v2 trained in: plans.json, dataset.json, fold_X"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder of the bundle")],
    trust: Annotated[
        bool,
        typer.Option("--trust", help="open its checkpoints, which are Python pickles"),
    ] = False,
    checkpoint: Annotated[
        CheckpointName | None,
        typer.Option(
            "--checkpoint",
            help="the one to take of each fold; default: final, else best, else latest",
        ),
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option(
            "--previous",
            help="folder of the 3d_lowres model that a cascade refines; default: beside it",
        ),
    ] = None,
) -> Any:
    """Turn a model of nnU-Net v2 into a bundle: plain and residual-encoder U-Nets, 2-D,
    3-D and cascades, all folds.
    """
    from trivox.importing.nnunet import import_nnunet as run

    bundle = run(folder, out, trust=trust, checkpoint=checkpoint, previous=previous)
    plan = bundle.description.plan
    stages = [bundle.description.previous, bundle.description]
    for stage in filter(None, stages):
        training = stage.training
        names = training["checkpoints"].items()
        folds = ", ".join(f"{fold} ({name})" for fold, name in names)
        configuration = f"{training['configuration']}, {training['trainer']}"
        say(f"{plan.dataset} ({configuration}), folds {folds}")
    for note in bundle.description.training["notes"]:
        say(f"note: {note}")
    say(f"model: {out} ({plan.network}; labels {', '.join(plan.labels.targets)})")
    return bundle


@answers("import brats")
def import_brats(
    source: Annotated[
        Path,
        typer.Argument(
            help="BraTS as downloaded: a .zip, .tar or .tar.gz, or a folder"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder of the dataset")],
    to: Annotated[
        BratsFormat,
        typer.Option("--format", help="brats (a folder a case) or nnU-Net's raw one"),
    ] = "brats",
) -> Any:
    """Bring BraTS cases from an archive or folder into a tidy dataset; a second call
    finishes what was interrupted.
    """
    from trivox.importing.brats_archive import import_brats as run

    terminal = Terminal()
    done = run(
        source,
        out,
        to=to,
        progress=lambda steps, total: terminal.track(steps, total, "importing"),
    )
    say(f"{out}: {done.cases} cases of {', '.join(done.families)}")
    notes = (
        ("held out", done.held_out),
        ("without label map", done.unlabelled),
        ("without a sequence", done.incomplete),
    )
    for what, count in notes:
        if count:
            say(f"note: {count} cases {what}")
    say(f"next: trivox check {out}")
    return {"folder": out, **vars(done)}


@answers("import class-folders")
def import_class_folders(
    source: Annotated[
        Path,
        typer.Argument(
            help="folder with train/CLASS/case_0000.nii.gz and case.nii.gz; also "
            "validation, test"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", help="folder of the dataset: Dataset777_Pancreas, say"),
    ],
    to: Annotated[
        ClassFoldersFormat, typer.Option("--format", help="nnU-Net's raw one")
    ] = "nnunet",
    labels: Annotated[
        list[str] | None,
        typer.Option(
            "--labels",
            help="name=value of a structure; repeatable: pancreas=1 lesion=2",
        ),
    ] = None,
    channels: Annotated[
        list[str] | None,
        typer.Option(
            "--channels",
            help="name of a channel; repeatable; CT sets the normalisation",
        ),
    ] = None,
) -> Any:
    """Write class folders as nnU-Net raw data with splits and classes; a second call
    finishes what was interrupted.
    """
    from trivox.importing.class_folders import import_class_folders as run

    terminal = Terminal()
    done = run(
        source,
        out,
        to=to,
        labels=named_values("--labels", labels or []),
        channels=channels or (),
        progress=lambda steps, total: terminal.track(steps, total, "importing"),
    )
    folds = f"{done.folds} folds"
    split = f"{done.validation} to validate on" if done.folds == 1 else folds
    say(f"{out}: {done.cases} cases, {done.test} of them test cases, {split}")
    classes = (f"{count} {name}" for name, count in done.classes.items())
    say("classes: " + ", ".join(classes))
    notes = (
        ("cases without mask", done.unlabelled),
        ("masks without image left out", done.masks_alone),
    )
    for what, count in notes:
        if count:
            say(f"note: {count} {what}")
    say(
        f"next: trivox check {out}; for nnU-Net, copy splits_final.json to its "
        "preprocessed folder before training"
    )
    return {"folder": out, **vars(done)}


@answers("drr")
def drr(
    ct: Annotated[list[Path], argument("drr", "ct", metavar="CT...")],
    out: Annotated[Path, option("drr", "out")],
    views: Annotated[str, option("drr", "views")] = "0,90",
    detector: Annotated[int, option("drr", "detector", min=1, max=4096)] = 256,
    pixel: Annotated[float | None, option("drr", "pixel")] = None,
    sod: Annotated[float, option("drr", "sod")] = 850.0,
    sdd: Annotated[float, option("drr", "sdd")] = 1020.0,
    secondary: Annotated[str, option("drr", "secondary")] = "0",
    noise: Annotated[float | None, option("drr", "noise")] = None,
    isocentre: Annotated[
        tuple[float, float, float] | None, option("drr", "isocentre")
    ] = None,
    format: Annotated[ViewFormat, option("drr", "format")] = "npz",
    seed: Annotated[int, option("drr", "seed")] = 0,
    series: Series = None,
    slice_tolerance: SliceTolerance = None,
) -> Any:
    """Render X-rays of CTs: line integrals, their geometry and a preview, as a dataset
    to train and predict on.
    """
    from trivox.verbs.drr import drr as run

    rendered = run(
        ct,
        out,
        views=views,
        detector=detector,
        pixel=pixel,
        sod=sod,
        sdd=sdd,
        secondary=secondary,
        noise=noise,
        isocentre=isocentre,
        format=format,
        seed=seed,
        series=series,
        slice_tolerance=slice_tolerance,
        console=Terminal(),
    )
    say(
        f"{len(rendered.exams)} exams of {rendered.views} views in {out}; each has a "
        "preview.png"
    )
    say(f"next: trivox check {out}")
    return rendered


@answers("check")
def check(
    dataset: DatasetPath,
    out: Annotated[Path | None, option("check", "out")] = None,
    classes: Classes = None,
    series: Series = None,
    slice_tolerance: SliceTolerance = None,
    predictions: Annotated[Path | None, option("check", "predictions")] = None,
    page: Annotated[Path | None, option("check", "page")] = None,
) -> Any:
    """Look for everything that would make training wrong; exit 1 if there is any."""
    from trivox.verbs.check import check as run

    checked = run(
        dataset,
        out=out,
        classes=classes,
        series=series,
        slice_tolerance=slice_tolerance,
        predictions=predictions,
        page=page,
        console=Terminal(),
    )
    data = checked.dataset
    report = checked.report
    say(
        f"{data.name}: {len(data.cases)} cases, {len(data.training_cases)} to train "
        f"on, {data.layout} layout"
    )
    if data.classes:
        counts = (f"{count} {name}" for name, count in checked.class_counts.items())
        say("classes: " + ", ".join(counts))
    for finding in report.findings:
        say(f"{finding.severity}: {finding}")
    if report.errors:
        raise DataError(
            f"{dataset}: {len(report.errors)} problems would make training wrong; they "
            "are listed above"
        ).with_result(checked)
    say(f"ready to train ({len(report.warnings)} warnings)")
    return checked


@answers("plan")
def plan(
    dataset: DatasetPath,
    out: Out = Path("plan.json"),
    task: Annotated[TaskName | None, option("plan", "task")] = None,
    classes: Classes = None,
    preset: Preset = None,
    recipe: RecipeName = None,
    network: Network = None,
    epochs: Epochs = None,
    minutes: Minutes = None,
    memory_gb: MemoryGb = None,
    patch_size: PatchSize = None,
    device: Device = "auto",
    set: Settings = None,
    series: Series = None,
    slice_tolerance: SliceTolerance = None,
    cost: Annotated[bool, option("plan", "cost")] = False,
    watts_per_core: Watts = None,
    price_per_hour: PricePerHour = None,
    price_per_kwh: PricePerKwh = None,
) -> Any:
    """Measure a dataset and decide spacing, patch, network and batch, with the reason
    for each.
    """
    from trivox.verbs.plan import plan as run

    planned = run(
        dataset,
        out,
        task=task,
        classes=classes,
        preset=preset,
        recipe=recipe,
        network=network,
        epochs=epochs,
        minutes=minutes,
        memory_gb=memory_gb,
        patch_size=patch_size,
        device=device,
        set=set,
        series=series,
        slice_tolerance=slice_tolerance,
        cost=cost,
        watts_per_core=watts_per_core,
        price_per_hour=price_per_hour,
        price_per_kwh=price_per_kwh,
        console=Terminal(),
    )
    _print_plan(planned.dataset, planned.decisions)
    for row in planned.cost_rows:
        say(f"{row.what}: {row.forecast}")
    for note in planned.cost_notes:
        say(note)
    for warning in planned.warnings:
        remark(f"warning: {warning}")
    say(f"written to {out}")
    return planned


@answers("preprocess")
def preprocess(
    dataset: DatasetPath,
    out: Out,
    task: Annotated[TaskName | None, option("plan", "task")] = None,
    classes: Classes = None,
    plan: Annotated[Path | None, option("preprocess", "plan")] = None,
    preset: Preset = None,
    recipe: RecipeName = None,
    network: Network = None,
    workers: Annotated[int, option("preprocess", "workers")] = 2,
    series: Series = None,
    slice_tolerance: SliceTolerance = None,
) -> Any:
    """Normalise and resample all training cases; a second call finishes what was
    interrupted.
    """
    from trivox.verbs.preprocess import preprocess as run

    done = run(
        dataset,
        out,
        task=task,
        classes=classes,
        plan=plan,
        preset=preset,
        recipe=recipe,
        network=network,
        workers=workers,
        series=series,
        slice_tolerance=slice_tolerance,
        console=Terminal(),
    )
    say(f"{len(done.cases)} cases ready in {out}")
    return done


def _print_plan(name: str, decisions: Sequence[tuple[str, str, str]]) -> None:
    if not for_people.get():
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(f"Plan for {name}")))
    for heading in ("what", "decision", "why"):
        table.add_column(heading, overflow="fold")
    for row in decisions:
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
