"""Verbs before training: check, plan, preprocess."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trivox.cli.options import (
    DatasetPath,
    Device,
    MemoryGb,
    Network,
    Out,
    PatchSize,
    Preset,
    Settings,
    Terminal,
    overrides,
)
from trivox.errors import DataError

if TYPE_CHECKING:
    from trivox.planning.plan import Plan


def check(
    dataset: DatasetPath,
    out: Annotated[Path | None, typer.Option("--out", help="also write the findings as JSON")] = None,
) -> None:
    """Look for everything that would make training wrong; exit 1 if there is any."""
    from trivox.datasets import check_dataset, load_dataset
    from trivox.files import write_json

    found = load_dataset(dataset)
    report = check_dataset(found)
    print(f"{found.name}: {len(found.cases)} cases, {len(found.training_cases)} to train on, {found.layout} layout")
    for finding in report.findings:
        print(f"{finding.severity}: {finding}")
    if out is not None:
        write_json(out, report.to_json())
    if report.errors:
        raise DataError(f"{dataset}: {len(report.errors)} problems would make training wrong; they are listed above")
    print(f"ready to train ({len(report.warnings)} warnings)")


def plan(
    dataset: DatasetPath,
    out: Out = Path("plan.json"),
    preset: Preset = "production",
    network: Network = None,
    memory_gb: MemoryGb = None,
    patch_size: PatchSize = None,
    device: Device = "auto",
    settings: Settings = None,
) -> None:
    """Measure a dataset and decide spacing, patch, network and batch, with the reason for each."""
    from trivox.config import make_recipe
    from trivox.datasets import load_dataset
    from trivox.learning.runtime import make_runtime
    from trivox.planning.plan import write_plan
    from trivox.tasks.preparing import fingerprint_of, plan_for

    recipe = make_recipe(preset, overrides(settings, network=network, memory_gb=memory_gb, patch_size=patch_size))
    found = load_dataset(dataset)
    fingerprint = fingerprint_of(found, out.with_name("fingerprint.json"), Terminal())
    runtime = make_runtime(device, recipe.precision)
    decided = plan_for(fingerprint, found, recipe, activation_bytes=runtime.activation_bytes)
    write_plan(decided, out)
    _print_plan(decided)
    print(f"written to {out}")


def preprocess(
    dataset: DatasetPath,
    out: Out,
    plan_file: Annotated[Path | None, typer.Option("--plan", help="a plan.json; default: plan now")] = None,
    preset: Preset = "production",
    network: Network = None,
    workers: Annotated[int, typer.Option("--workers", help="cases at a time")] = 2,
) -> None:
    """Normalise and resample all training cases; a second call finishes what was interrupted."""
    from trivox.config import make_recipe
    from trivox.learning.runtime import make_runtime
    from trivox.tasks.preparing import prepare_run

    recipe = make_recipe(preset, overrides(None, network=network, workers=workers))
    prepared = prepare_run(
        dataset, out, recipe, runtime=make_runtime("cpu"), plan_file=plan_file, reuse_plan=False, console=Terminal()
    )
    print(f"{len(prepared.dataset.training_cases)} cases ready in {out}")


def _print_plan(decided: "Plan") -> None:
    from rich.console import Console
    from rich.table import Table

    from trivox.planning.planner import describe_plan

    table = Table(title=f"Plan for {decided.dataset}")
    for heading in ("what", "decision", "why"):
        table.add_column(heading, overflow="fold")
    for row in describe_plan(decided):
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
