"""Pictures of a run's validation cases: slices for the report, and surfaces in 3-D on
pages beside it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

import numpy as np

from trivox.datasets.dataset import Case
from trivox.datasets.labels import LabelScheme
from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.datasets.reading import read_channels, read_prediction, read_reference
from trivox.errors import TrivoxError, few
from trivox.evaluation.folders.labels import mean_of_case
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
    surface_scene,
    write_viewer,
)
from trivox.planning.plan import Plan
from trivox.tasks.console import Console
from trivox.tasks.report import ranked_cases
from trivox.tasks.task import Pictures
from trivox.volumes.geometry import canonical_orientation, reorient

EMBEDDED = "median"


def picture_cases(
    run: Path, plan: Plan, metrics: MetricsFile, *, report: Path, console: Console
) -> Pictures:
    """Best, median and worst case by mean Dice; a case whose files are gone or damaged
    is left out with a line.

    Writes the surfaces of each to `REPORT-3d/CASE.html` beside the report.
    """
    cases = {case.name: case for case in read_saved_dataset(run / "dataset.json").cases}
    pictures = Pictures()
    for name, ranks in ranked_cases(_scores(metrics)).items():
        try:
            prediction = run / "validation" / "predictions" / f"{name}.nii.gz"
            view = case_view(cases[name], plan, prediction, metrics["cases"][name])
        except (TrivoxError, KeyError) as error:
            console.say(f"{name}: no picture ({error})")
            continue
        heading = f"{', '.join(ranks)} case: {name}"
        body = body_surface(view.image, view.affine)
        file = report.with_name(f"{report.stem}-3d") / f"{name}.html"
        page = _write_page(view, body, file, heading)
        pictures.cases.append(CasePictures(heading, _figures(view, heading), page))
        if EMBEDDED in ranks:
            scene = surface_scene(view, body, vertices=EMBEDDED_VERTICES)
            if scene is not None:
                pictures.surfaces = (f"{heading}. {_dice_line(view)}", scene)
    return pictures


def _scores(metrics: MetricsFile) -> dict[str, float]:
    """Mean Dice of the cases where there is one."""
    means = {
        name: mean_of_case(rows, "dice") for name, rows in metrics["cases"].items()
    }
    return {name: mean for name, mean in means.items() if mean is not None}


class Meaning(Protocol):
    """What images and labels mean: a plan says it, and a dataset."""

    @property
    def channels(self) -> Sequence[str]:
        """Names of the images of a case."""

    @property
    def labels(self) -> LabelScheme | None:
        """What label values mean."""


def case_view(
    case: Case,
    meaning: Meaning,
    prediction: Path,
    metrics: Mapping[str, MetricRow],
) -> CaseView:
    """A case with its prediction, its reference and its Dice; raises the errors of
    reading them.

    metrics: of the case by target; empty: it was not measured.
    """
    scheme = meaning.labels
    assert scheme is not None
    image = read_channels(case, channels=len(meaning.channels))
    orientation = canonical_orientation(image.affine)
    labels = [read_prediction(prediction, case, scheme, image)]
    if case.label is not None:
        labels.append(read_reference(case, scheme, image))
    indices = []
    for label in labels:
        array = orientation.apply(label.array)[0]
        contiguous = np.ascontiguousarray(array)
        indices.append(scheme.encode(contiguous, where=case.name))
    canonical = reorient(image, orientation)
    return CaseView(
        canonical.array,
        indices[0],
        indices[1] if len(indices) > 1 else None,
        canonical.affine,
        channels=meaning.channels,
        labels=sorted(scheme.labels, key=lambda name: scheme.labels[name]),
        targets=scheme.targets,
        dice={name: row.get("dice") for name, row in metrics.items()},
    )


def _figures(view: CaseView, title: str) -> list[tuple[str, bytes]]:
    """Captions and figures: one channel is shown in three planes, several side by side;
    errors of each region.
    """
    dice = _dice_line(view)
    near = view.without_margin()
    if len(view.channels) == 1:
        figures = [_overlay(view, title, dice)]
    else:
        channels = channels_figure(near, title=title)
        comparison = comparison_figure(near, title=title)
        what = "image, reference, prediction and errors"
        figures = [
            (f"{title}: all channels. {dice}", channels),
            (f"{title}: {what}. {dice}", comparison),
        ]
    if len(view.channels) == 1 or view.overlapping:
        errors = error_figure(near, title=title)
        what = "errors of each region" if view.overlapping else "errors"
        if errors is not None:
            figures.append((f"{title}: {what}. {dice}", errors))
    return figures


def _overlay(view: CaseView, title: str, dice: str) -> tuple[str, bytes]:
    figure = overlay_figure(
        view.image[0],
        view.prediction,
        view.reference,
        spacing=view.spacing,
        names=view.labels,
        title=title,
    )
    return f"{title}: prediction (filled) and reference (outlined). {dice}", figure


def _dice_line(view: CaseView) -> str:
    parts = []
    for name in view.targets:
        dice = view.dice.get(name)
        parts.append(f"{name} in neither" if dice is None else f"{name} {dice:.3f}")
    return f"Dice: {few(parts, shown=8)}."


def _write_page(view: CaseView, body: Mesh | None, out: Path, title: str) -> str | None:
    """The surfaces' page; its address relative to the report, or None where there is no
    surface.
    """
    scene = surface_scene(view, body)
    if scene is None:
        return None
    write_viewer(out, scene, title=title)
    return f"{quote(out.parent.name)}/{quote(out.name)}"
