"""Pictures of a run's validation cases: slices for the report, and surfaces in 3-D on
pages beside it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.datasets.reading import read_channels
from trivox.errors import TrivoxError
from trivox.evaluation.metrics.content import MetricRow, MetricsFile
from trivox.evaluation.report.case_view import CaseView
from trivox.evaluation.report.figures import overlay_figure
from trivox.evaluation.report.page import CasePictures
from trivox.evaluation.report.region_figures import (
    channels_figure,
    comparison_figure,
    error_figure,
)
from trivox.evaluation.report.surface_meshes import Mesh, body_surface
from trivox.evaluation.report.viewer import (
    EMBEDDED_VERTICES,
    Scene,
    surface_scene,
    write_viewer,
)
from trivox.planning.plan import Plan
from trivox.tasks.console import Console
from trivox.volumes.formats import read_labels
from trivox.volumes.geometry import canonical_orientation, reorient

RANKS = ("best", "median", "worst")
EMBEDDED = "median"


@dataclass(eq=False)
class Pictures:
    """cases: in the order of RANKS.

    surfaces: caption and scene of the case that the report itself shows in 3-D.
    """

    cases: list[CasePictures] = field(default_factory=list)
    surfaces: tuple[str, Scene] | None = None


def picture_cases(
    run: Path, plan: Plan, metrics: MetricsFile, *, report: Path, console: Console
) -> Pictures:
    """Best, median and worst case by mean Dice; a case whose files are gone or damaged
    is left out with a line.

    Writes the surfaces of each to `REPORT-3d/CASE.html` beside the report.
    """
    cases = {case.name: case for case in read_saved_dataset(run / "dataset.json").cases}
    pictures = Pictures()
    for name, ranks in _ranked(metrics).items():
        try:
            view = case_view(
                cases[name],
                plan,
                run / "validation" / "predictions" / f"{name}.nii.gz",
                metrics,
            )
        except (TrivoxError, KeyError) as error:
            console.say(f"{name}: no picture ({error})")
            continue
        heading = f"{', '.join(ranks)} case: {name}"
        body = body_surface(view.image, view.affine)
        page = _write_page(
            view, body, report.with_name(f"{report.stem}-3d") / f"{name}.html", heading
        )
        pictures.cases.append(CasePictures(heading, _figures(view, heading), page))
        if EMBEDDED in ranks:
            scene = surface_scene(view, body, vertices=EMBEDDED_VERTICES)
            pictures.surfaces = (
                None if scene is None else (f"{heading}. {_dice_line(view)}", scene)
            )
    return pictures


def _ranked(metrics: MetricsFile) -> dict[str, list[str]]:
    """What each chosen case is an example of: one case can be the best and the worst."""
    scores = {
        name: mean
        for name, rows in metrics["cases"].items()
        if (mean := _mean_dice(rows)) is not None
    }
    ordered = sorted(scores, key=lambda name: -scores[name])
    found: dict[str, list[str]] = {}
    for rank, place in zip(RANKS, (0, len(ordered) // 2, -1), strict=True):
        if ordered:
            found.setdefault(ordered[place], []).append(rank)
    return found


def _mean_dice(rows: Mapping[str, MetricRow]) -> float | None:
    values = [row["dice"] for row in rows.values() if row.get("dice") is not None]
    return sum(values) / len(values) if values else None


def case_view(
    case: Case, plan: Plan, prediction: Path, metrics: MetricsFile
) -> CaseView:
    """A case of a run with its prediction, its reference and its Dice; raises the
    errors of reading them.
    """
    image = read_channels(case, channels=len(plan.channels))
    orientation = canonical_orientation(image.affine)
    files = [prediction, *([] if case.label is None else [case.label])]
    maps = [orientation.apply(read_labels(file).array)[0] for file in files]
    indices = [
        plan.labels.encode(np.ascontiguousarray(array), where=case.name)
        for array in maps
    ]
    canonical, scheme = reorient(image, orientation), plan.labels
    return CaseView(
        canonical.array,
        indices[0],
        indices[1] if len(indices) > 1 else None,
        canonical.affine,
        channels=plan.channels,
        labels=sorted(scheme.labels, key=lambda name: scheme.labels[name]),
        targets=scheme.targets,
        dice={
            name: row.get("dice")
            for name, row in metrics["cases"].get(case.name, {}).items()
        },
    )


def _figures(view: CaseView, title: str) -> list[tuple[str, bytes]]:
    """Captions and figures: one channel is shown in three planes, several side by side;
    errors of each region.
    """
    dice, near = _dice_line(view), view.without_margin()
    if len(view.channels) == 1:
        overlay = overlay_figure(
            view.image[0],
            view.prediction,
            view.reference,
            spacing=view.spacing,
            names=view.labels,
            title=title,
        )
        figures = [
            (f"{title}: prediction (filled) and reference (outlined). {dice}", overlay)
        ]
    else:
        figures = [
            (f"{title}: all channels. {dice}", channels_figure(near, title=title)),
            (
                f"{title}: image, reference, prediction and errors. {dice}",
                comparison_figure(near, title=title),
            ),
        ]
    errors = (
        error_figure(near, title=title)
        if len(view.channels) == 1 or view.overlapping
        else None
    )
    of_what = "errors of each region" if view.overlapping else "errors"
    return figures + (
        [] if errors is None else [(f"{title}: {of_what}. {dice}", errors)]
    )


def _dice_line(view: CaseView) -> str:
    known = [
        f"{name} {view.dice[name]:.3f}"
        if view.dice.get(name) is not None
        else f"{name} in neither"
        for name in view.targets
    ]
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return f"Dice: {', '.join(known[:8])}{more}."


def _write_page(view: CaseView, body: Mesh | None, out: Path, title: str) -> str | None:
    """The surfaces' page; its address relative to the report, or None where there is no
    surface.
    """
    scene = surface_scene(view, body)
    if scene is None:
        return None
    write_viewer(out, scene, title=title)
    return f"{quote(out.parent.name)}/{quote(out.name)}"
