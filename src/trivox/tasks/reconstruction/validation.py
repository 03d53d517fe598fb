"""After training a reconstruction: the bundle, held-out exams beside the classical
ladder, the report.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trivox.config.recipe import Recipe
from trivox.datasets.dataset import Case
from trivox.datasets.exams import Exam, read_exam
from trivox.evaluation.folders.volume_summary import (
    CONSISTENT,
    NETWORK,
    Rungs,
    collect_reconstructions,
)
from trivox.evaluation.metrics.volumes import measure_arrays, projection_rmse
from trivox.files import write_json
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import VolumeDescription
from trivox.inference.reconstructor import Reconstructor
from trivox.learning.checkpoints import final_weights
from trivox.learning.runtime import make_runtime
from trivox.preparation.exam_store import fitted_views
from trivox.projection.grids import placed
from trivox.projection.ladder import Ladder
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.tasks.console import Console
from trivox.tasks.reconstruction.exams import PreparedExams
from trivox.tasks.report import report_run
from trivox.tasks.task import RunRequest
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Array

COUNTS = (1, 2, 4, 8)
"""Numbers of views that a report shows, as far as they are there."""
MOST_CASES = 40
"""Held-out cases of a fold that the classical methods are run on; more of them take
longer than training.
"""
LIBRARY = 500
"""Training cases that the baselines are fitted on."""

Row = dict[str, float | None]
Measured = dict[int, dict[str, dict[str, Row]]]
"""By number of views, then method, then case."""


def finish_volumes(
    request: RunRequest,
    recipe: Recipe,
    prepared: PreparedExams,
    folders: Mapping[int, Path],
    console: Console,
) -> dict[str, Any]:
    """Write the bundle, `validation/` and the report; returns the content of
    `validation/metrics.json`.
    """
    weights = {
        str(fold): final_weights(folder / "checkpoints", recipe.final_weights)
        for fold, folder in folders.items()
    }
    measured: Measured = {}
    views = 0
    for fold, file in weights.items():
        reconstructor = Reconstructor.of(
            prepared.plan, [file], make_runtime(request.device, recipe.precision)
        )
        views = max(
            views,
            _validate_fold(
                prepared, reconstructor, int(fold), request.out, measured, console
            ),
        )
    rungs = {count: Rungs(count, measured[count]) for count in sorted(measured)}
    metrics = collect_reconstructions(
        measured[views][CONSISTENT],
        window=prepared.plan.window,
        ladder=rungs[views],
        by_views=list(rungs.values()),
        warnings=_warnings(prepared, recipe, folders),
    )
    write_json(request.out / "validation" / "metrics.json", metrics)
    summary = {
        "dataset": prepared.dataset.name,
        "folds": {fold: len(prepared.splits[int(fold)].train) for fold in weights},
        "recipe": recipe.model_dump(mode="json"),
        "validation": metrics["summary"],
    }
    description = VolumeDescription(
        task=prepared.plan.task,
        plan=prepared.plan,
        views=recipe.reconstruction.view_counts,
        training=summary,
    )
    write_bundle(request.out / "bundle", description, weights)
    report_run(request.out, console=console, log_folder=next(iter(folders.values())))
    return metrics


def _validate_fold(
    prepared: PreparedExams,
    reconstructor: Reconstructor,
    fold: int,
    out: Path,
    measured: Measured,
    console: Console,
) -> int:
    """Measure a fold's held-out cases, write their volumes from all stored views;
    returns how many views that are.
    """
    cases = {case.name: case for case in prepared.dataset.cases}
    split = prepared.splits[fold]
    held_out, library = (
        evenly(split.validation, MOST_CASES),
        evenly(split.train, LIBRARY),
    )
    stored = min(prepared.store.views(name).views for name in (*held_out, *library))
    counts = sorted({*(count for count in COUNTS if count <= stored), stored})
    ladders = {count: _ladder(prepared, library, count) for count in counts}
    for name in console.track(held_out, len(held_out), f"validating fold {fold}"):
        exam = read_exam(cases[name])
        truth = prepared.volume(name).numpy()
        for count in counts:
            xrays = fitted_views(exam, prepared.plan, where=name).select(range(count))
            found = volumes_of(reconstructor, ladders[count], xrays)
            for method, volume in found.items():
                row = _measure(volume, truth, prepared, exam, xrays)
                measured.setdefault(count, {}).setdefault(method, {})[name] = row
            if count == stored:
                _write(out, cases[name], found[CONSISTENT], prepared, exam)
    return stored


def _ladder(prepared: PreparedExams, names: Sequence[str], count: int) -> Ladder:
    plan = prepared.plan
    return Ladder.fit(
        (prepared.volume(name) for name in names),
        (prepared.store.views(name).select(range(count)) for name in names),
        plan.grid,
        water_per_mm=plan.water_per_mm,
        window=plan.window,
    )


def volumes_of(
    reconstructor: Reconstructor, ladder: Ladder, xrays: Xrays
) -> dict[str, Array]:
    """HU `(z, y, x)` by method: the rungs of the ladder, then the network without and
    with its last steps.
    """
    projector = Projector(xrays.geometry, reconstructor.plan.grid)
    found = {
        name: volume.numpy()
        for name, volume in ladder.reconstruct(xrays, projector).items()
    }
    for name, consistent in ((NETWORK, False), (CONSISTENT, True)):
        found[name] = (
            reconstructor.reconstruct(xrays, consistent=consistent)[0].cpu().numpy()
        )
    return found


def _warnings(
    prepared: PreparedExams, recipe: Recipe, folders: Mapping[int, Path]
) -> list[str]:
    """What a reader of the figures has to know."""
    held_out = [len(prepared.splits[fold].validation) for fold in folders]
    found = []
    if max(held_out) > MOST_CASES:
        found.append(
            f"measured on {MOST_CASES} of the {max(held_out)} held-out cases of a fold, evenly chosen"
        )
    if recipe.final_weights == "best":
        found.append(
            "the checkpoint was chosen on these validation cases; declared test cases show what it is worth elsewhere"
        )
    return found


def _measure(
    volume: Array, truth: Array, prepared: PreparedExams, exam: Exam, xrays: Xrays
) -> Row:
    plan = prepared.plan
    seen = Exam(xrays, exam.isocentre, exam.kind, plan.water_per_mm)
    return {
        **measure_arrays(volume, truth, window=plan.window),
        "projection_rmse": projection_rmse(volume, plan.grid, seen),
    }


def _write(
    out: Path, case: Case, volume: Array, prepared: PreparedExams, exam: Exam
) -> None:
    array = np.rint(volume).astype(np.int16)
    target = out / "validation" / "predictions" / f"{case.name}.nii.gz"
    write_volume(target, placed(array, prepared.plan.grid, isocentre=exam.isocentre))


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, evenly spaced."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]
