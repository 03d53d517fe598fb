"""Verbs before training: import of data, check, plan, preprocess."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from trivox.cli.options import (
    Classes,
    DatasetPath,
    Device,
    MemoryGb,
    Network,
    Out,
    PatchSize,
    Preset,
    RecipeName,
    Settings,
    Terminal,
    angles,
    named_values,
    overrides,
    recipe_name,
)
from trivox.errors import DataError


def import_brats(
    source: Annotated[
        Path,
        typer.Argument(
            help="BraTS as downloaded: a .zip, .tar or .tar.gz, or a folder"
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder of the dataset")],
    to: Annotated[
        str,
        typer.Option(
            "--format", help="brats (a folder a case) or nnunet (raw format 2)"
        ),
    ] = "brats",
) -> None:
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
    print(f"{out}: {done.cases} cases of {', '.join(done.families)}")
    notes = (
        ("held out", done.held_out),
        ("without label map", done.unlabelled),
        ("without a sequence", done.incomplete),
    )
    for what, count in notes:
        if count:
            print(f"note: {count} cases {what}")
    print(f"next: trivox check {out}")


def import_class_folders(
    source: Annotated[
        Path,
        typer.Argument(
            help="folder with train/CLASS/case_0000.nii.gz and case.nii.gz; also validation, test"
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="folder of the dataset, such as Dataset777_Pancreas"
        ),
    ],
    to: Annotated[
        str, typer.Option("--format", help="nnunet (raw format 2)")
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
) -> None:
    """Write class folders as nnU-Net raw data with splits and classes; a second call
    finishes what was interrupted.
    """
    from trivox.importing.class_folders import import_class_folders as run

    terminal = Terminal()
    done = run(
        source,
        out,
        to=to,
        labels=named_values(labels or []),
        channels=channels or (),
        progress=lambda steps, total: terminal.track(steps, total, "importing"),
    )
    split = (
        f"{done.validation} to validate on"
        if done.folds == 1
        else f"{done.folds} folds"
    )
    print(f"{out}: {done.cases} cases, {done.test} of them test cases, {split}")
    print(
        "classes: "
        + ", ".join(f"{count} {name}" for name, count in done.classes.items())
    )
    for what, count in (
        ("cases without mask", done.unlabelled),
        ("masks without image left out", done.masks_alone),
    ):
        if count:
            print(f"note: {count} {what}")
    print(
        f"next: trivox check {out}; for nnU-Net, copy splits_final.json to its preprocessed folder before training"
    )


def drr(
    scans: Annotated[
        list[Path],
        typer.Argument(
            help="CTs (NIfTI, NRRD, MetaImage, DICOM folder), or folders of them",
            metavar="CT...",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="folder of the X-ray dataset")],
    views: Annotated[
        str,
        typer.Option("--views", help="degrees: 0 AP, 90 source on the left, 180 PA"),
    ] = "0,90",
    detector: Annotated[
        int, typer.Option("--detector", min=1, max=4096, help="pixels along an edge")
    ] = 256,
    pixel: Annotated[
        float | None, typer.Option("--pixel", help="mm; default: each patient fits")
    ] = None,
    sod: Annotated[
        float, typer.Option("--sod", help="mm from the source to the isocentre")
    ] = 850.0,
    sdd: Annotated[
        float, typer.Option("--sdd", help="mm from the source to the detector")
    ] = 1020.0,
    secondary: Annotated[
        str, typer.Option("--secondary", help="degrees, + cranial; one, or one a view")
    ] = "0",
    noise: Annotated[
        float | None,
        typer.Option("--noise", help="photons a pixel, such as 1e5; default: none"),
    ] = None,
    isocentre: Annotated[
        tuple[float, float, float] | None,
        typer.Option("--isocentre", help="RAS mm, x y z; default: the CT's middle"),
    ] = None,
    view_format: Annotated[
        str, typer.Option("--format", help="of the views: npz or nifti")
    ] = "npz",
    seed: Annotated[int, typer.Option("--seed", help="of the noise")] = 0,
) -> None:
    """Render X-rays of CTs: line integrals, their geometry and a preview, as a dataset
    to train and predict on.
    """
    from trivox.verbs.drr import DrrRequest, render_exams

    if view_format not in ("npz", "nifti"):
        raise typer.BadParameter(f"--format {view_format}: choose npz or nifti")
    request = DrrRequest(
        tuple(scans),
        out,
        angles=angles(views, "--views"),
        secondary=angles(secondary, "--secondary"),
        detector=detector,
        pixel_mm=pixel,
        sod=sod,
        sdd=sdd,
        photons=noise,
        isocentre=isocentre,
        view_format=view_format,  # type: ignore[arg-type]
        seed=seed,
    )
    done = render_exams(request, Terminal())
    print(
        f"{len(done)} exams of {len(request.angles)} views in {out}; each has a preview.png"
    )
    print(f"next: trivox check {out}")


def check(
    dataset: DatasetPath,
    out: Annotated[
        Path | None, typer.Option("--out", help="also write the findings as JSON")
    ] = None,
    classes: Classes = None,
) -> None:
    """Look for everything that would make training wrong; exit 1 if there is any."""
    from trivox.datasets.checks.dataset import check_dataset
    from trivox.datasets.class_tables import with_classes
    from trivox.datasets.layouts.choice import load_dataset
    from trivox.files import write_json

    found = load_dataset(dataset)
    found = found if classes is None else with_classes(found, classes)
    report = check_dataset(found)
    print(
        f"{found.name}: {len(found.cases)} cases, {len(found.training_cases)} to train on, {found.layout} layout"
    )
    if found.classes:
        told = Counter(case.class_name for case in found.cases)
        print(
            "classes: "
            + ", ".join(
                f"{told[name]} {name or 'not known'}"
                for name in (*found.classes, None)
                if told[name]
            )
        )
    for finding in report.findings:
        print(f"{finding.severity}: {finding}")
    if out is not None:
        write_json(out, report.to_json())
    if report.errors:
        raise DataError(
            f"{dataset}: {len(report.errors)} problems would make training wrong; they are listed above"
        )
    print(f"ready to train ({len(report.warnings)} warnings)")


def plan(
    dataset: DatasetPath,
    out: Out = Path("plan.json"),
    preset: Preset = None,
    named: RecipeName = None,
    network: Network = None,
    memory_gb: MemoryGb = None,
    patch_size: PatchSize = None,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Measure a dataset and decide spacing, patch, network and batch, with the reason
    for each.
    """
    from trivox.verbs.plan import plan_dataset

    chosen = overrides(
        settings,
        recipe=named,
        network=network,
        memory_gb=memory_gb,
        patch_size=patch_size,
    )
    name, decisions = plan_dataset(
        dataset,
        out,
        preset=preset,
        overrides=chosen,
        named=recipe_name(named),
        device=device,
        console=Terminal(),
    )
    _print_plan(name, decisions)
    print(f"written to {out}")


def preprocess(
    dataset: DatasetPath,
    out: Out,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="a plan.json; default: plan now")
    ] = None,
    preset: Preset = None,
    named: RecipeName = None,
    network: Network = None,
    workers: Annotated[int, typer.Option("--workers", help="cases at a time")] = 2,
) -> None:
    """Normalise and resample all training cases; a second call finishes what was
    interrupted.
    """
    from trivox.verbs.plan import preprocess_dataset

    count = preprocess_dataset(
        dataset,
        out,
        preset=preset,
        overrides=overrides(None, recipe=named, network=network, workers=workers),
        named=recipe_name(named),
        plan_file=plan_file,
        console=Terminal(),
    )
    print(f"{count} cases ready in {out}")


def _print_plan(name: str, decisions: Sequence[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Plan for {name}")
    for heading in ("what", "decision", "why"):
        table.add_column(heading, overflow="fold")
    for row in decisions:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
