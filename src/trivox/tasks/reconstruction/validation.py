"""After training a reconstruction: held-out exams beside the classical ladder, and the
bundle.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from trivox.config.recipe import Recipe
from trivox.datasets.exams import Exam, read_exam
from trivox.evaluation.folders.measured import measured_files
from trivox.evaluation.folders.volume_summary import (
    CONSISTENT,
    NETWORK,
    Rungs,
    collect_volumes,
)
from trivox.evaluation.metrics.content import MetricsFile
from trivox.evaluation.metrics.volumes import measure_arrays, projection_rmse
from trivox.files import write_json
from trivox.inference.bundle import write_bundle
from trivox.inference.descriptions import VolumeDescription
from trivox.inference.reconstructor import Reconstructor
from trivox.learning.checkpoints import trained_weights
from trivox.learning.ranks.sharing import shared
from trivox.learning.runtime import make_runtime, rank
from trivox.preparation.exam_store import fitted_views
from trivox.projection.grids import placed
from trivox.projection.ladder import Ladder
from trivox.projection.projector import Projector
from trivox.projection.xrays import Xrays
from trivox.tasks.brevity import too_short
from trivox.tasks.console import Console
from trivox.tasks.cost.summary import training_summary
from trivox.tasks.reconstruction.exams import PreparedExams, reference_volume
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
VolumeScores = dict[int, dict[str, dict[str, Row]]]
"""By number of views, then method, then case."""
CaseScores = dict[int, dict[str, Row]]
"""Of a case, by number of views, then method."""


@dataclass(frozen=True, eq=False)
class FoldResults:
    """A fold's network, exams that it has not seen, and training exams that the
    classical methods are fitted on.
    """

    exams: PreparedExams
    reconstructor: Reconstructor
    held_out: list[str]
    library: list[str]

    @classmethod
    def of(
        cls, exams: PreparedExams, reconstructor: Reconstructor, fold: int
    ) -> "FoldResults":
        """Evenly chosen cases of a fold, where it has many."""
        split = exams.splits[fold]
        held_out = evenly(split.validation, MOST_CASES)
        return cls(exams, reconstructor, held_out, evenly(split.train, LIBRARY))

    @property
    def views(self) -> int:
        """Views that every exam has."""
        names = (*self.held_out, *self.library)
        return min(self.exams.store.views(name).views for name in names)

    @property
    def counts(self) -> list[int]:
        """Numbers of views to measure with."""
        return sorted({*(count for count in COUNTS if count <= self.views), self.views})


def finish_volumes(
    task: str,
    request: RunRequest,
    recipe: Recipe,
    exams: PreparedExams,
    folders: Mapping[int, Path],
    console: Console,
) -> MetricsFile | None:
    """Write `validation/` and `bundle/`; returns the content of metrics.json, on the
    first rank. Ranks share the exams.
    """
    weights = trained_weights(recipe, folders)
    runtime = make_runtime(request.device, recipe.precision)
    out = request.out / "validation"
    measured: VolumeScores = {}
    views = 0
    for fold, file in weights.items():
        reconstructor = Reconstructor.of(exams.plan, [file], runtime)
        results = FoldResults.of(exams, reconstructor, int(fold))
        views = max(views, results.views)
        measure = partial(_measure_exams, results, fold, out, console)
        rows = shared(results.held_out, measure, ())
        for case, scores in zip(results.held_out, rows, strict=False):
            _note(measured, case, scores)
    if rank() != 0:
        return None
    rungs = {count: Rungs(count, measured[count]) for count in sorted(measured)}
    metrics = collect_volumes(
        measured[views][CONSISTENT],
        task=task,
        window=exams.plan.window,
        ladder=rungs[views],
        by_views=list(rungs.values()),
        warnings=[*too_short(recipe, folders), *_warnings(exams, recipe, folders)],
    )
    volumes = {case.name: case.volume for case in exams.dataset.cases}
    metrics["sources"] = {
        name: measured_files(_file(out, name), volumes[name])
        for name in metrics["cases"]
    }
    write_json(out / "metrics.json", metrics)
    description = VolumeDescription(
        task=task,
        plan=exams.plan,
        views=recipe.reconstruction.view_counts,
        training=training_summary(exams, recipe, folders, metrics, request.out),
    )
    write_bundle(request.out / "bundle", description, weights)
    return metrics


def _measure_exams(
    fold: FoldResults, name: str, out: Path, console: Console, held_out: Sequence[str]
) -> Iterator[CaseScores]:
    """Measure held-out exams of a fold, and write their volumes from all views."""
    if not held_out:
        return
    exams = fold.exams
    cases = {case.name: case for case in exams.dataset.cases}
    ladders = {count: _ladder(exams, fold.library, count) for count in fold.counts}
    for case in console.track(held_out, len(held_out), f"validating fold {name}"):
        exam = read_exam(cases[case])
        truth = reference_volume(exams, case).numpy()
        scores: CaseScores = {}
        for count, ladder in ladders.items():
            xrays = fitted_views(exam, exams.plan).select(range(count))
            volumes = volumes_of(fold.reconstructor, ladder, xrays)
            scores[count] = {
                method: _measure(volume, truth, exams, exam, xrays)
                for method, volume in volumes.items()
            }
            if count == fold.views:
                _write(out, case, volumes[CONSISTENT], exams, exam)
        yield scores


def _note(measured: VolumeScores, case: str, scores: CaseScores) -> None:
    """Put the scores of a case to those of the others."""
    for count, methods in scores.items():
        of_count = measured.setdefault(count, {})
        for method, row in methods.items():
            of_count.setdefault(method, {})[case] = row


def _ladder(exams: PreparedExams, names: Sequence[str], count: int) -> Ladder:
    plan = exams.plan
    return Ladder.fit(
        (reference_volume(exams, name) for name in names),
        (exams.store.views(name).select(range(count)) for name in names),
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
    rungs = ladder.reconstruct(xrays, projector)
    volumes = {name: volume.numpy() for name, volume in rungs.items()}
    for name, consistent in ((NETWORK, False), (CONSISTENT, True)):
        batch = reconstructor.reconstruct(xrays, consistent=consistent)
        volumes[name] = batch[0].cpu().numpy()
    return volumes


def _warnings(
    exams: PreparedExams, recipe: Recipe, folders: Mapping[int, Path]
) -> list[str]:
    """What a reader of the figures has to know."""
    most = max(len(exams.splits[fold].validation) for fold in folders)
    warnings = []
    if most > MOST_CASES:
        warnings.append(
            f"measured on {MOST_CASES} of the {most} held-out cases of a fold, evenly "
            "chosen"
        )
    if recipe.final_weights == "best":
        warnings.append(
            "the checkpoint was chosen on these validation cases; declared test cases "
            "show what it is worth elsewhere"
        )
    return warnings


def _measure(
    volume: Array, truth: Array, exams: PreparedExams, exam: Exam, xrays: Xrays
) -> Row:
    plan = exams.plan
    used = Exam(xrays, exam.isocentre, exam.kind, plan.water_per_mm)
    return {
        **measure_arrays(volume, truth, window=plan.window),
        "projection_rmse": projection_rmse(volume, plan.grid, used),
    }


def _write(
    out: Path, case: str, volume: Array, exams: PreparedExams, exam: Exam
) -> None:
    array = np.rint(volume).astype(np.int16)
    placed_volume = placed(array, exams.plan.grid, isocentre=exam.isocentre)
    write_volume(_file(out, case), placed_volume)


def _file(out: Path, case: str) -> Path:
    return out / "predictions" / f"{case}.nii.gz"


def evenly(names: Sequence[str], most: int) -> list[str]:
    """At most so many of the names, evenly spaced."""
    if len(names) <= most:
        return list(names)
    return [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]
