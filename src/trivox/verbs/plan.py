"""What `trivox plan` and `trivox preprocess` do, for labelled images and for X-rays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trivox.datasets.layouts.choice import load_dataset
from trivox.learning.runtime import make_runtime
from trivox.planning.describe import describe_plan, describe_volume_plan
from trivox.planning.plan import write_plan
from trivox.planning.volumes import write_volume_plan
from trivox.tasks.console import Console
from trivox.tasks.reconstruction.exams import prepare_xrays
from trivox.tasks.reconstruction.planning import plan_reconstruction
from trivox.tasks.reconstruction.task import ReconstructionTask
from trivox.tasks.stages import fingerprint_of, plan_for, prepare_run, recipe_for

Decisions = list[tuple[str, str, str]]


def plan_dataset(
    path: Path,
    out: Path,
    *,
    preset: str | None,
    overrides: Mapping[str, Any],
    named: str | None,
    device: str,
    console: Console,
) -> tuple[str, Decisions]:
    """Write the plan of a dataset to `out`; returns the dataset's name and what was
    decided: what, decision, reason.
    """
    dataset = load_dataset(path)
    if dataset.task == "reconstruction":
        recipe = recipe_for(
            preset, overrides, device=device, named=named or ReconstructionTask.recipe
        )
        made = plan_reconstruction(dataset, recipe)
        write_volume_plan(made, out)
        return dataset.name, describe_volume_plan(made)
    recipe = recipe_for(preset, overrides, device=device, named=named)
    fingerprint = fingerprint_of(dataset, out.with_name("fingerprint.json"), console)
    runtime = make_runtime(device, recipe.precision)
    plan = plan_for(
        fingerprint, dataset, recipe, activation_bytes=runtime.activation_bytes
    )
    write_plan(plan, out)
    return dataset.name, describe_plan(plan)


def preprocess_dataset(
    path: Path,
    out: Path,
    *,
    preset: str | None,
    overrides: Mapping[str, Any],
    named: str | None,
    plan_file: Path | None,
    console: Console,
) -> int:
    """Prepare all training cases in `out`; returns how many there are."""
    if load_dataset(path).task == "reconstruction":
        recipe = recipe_for(preset, overrides, named=named or ReconstructionTask.recipe)
        exams = prepare_xrays(
            path, out, recipe, plan_file=plan_file, reuse_plan=False, console=console
        )
        return len(exams.dataset.training_cases)
    recipe = recipe_for(preset, overrides, named=named)
    prepared = prepare_run(
        path,
        out,
        recipe,
        runtime=make_runtime("cpu"),
        plan_file=plan_file,
        reuse_plan=False,
        console=console,
    )
    return len(prepared.dataset.training_cases)
