"""A page to go through: each doubtful label where it is most doubtful."""

from pathlib import Path

import numpy as np

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.reading import read_channels
from trivox.errors import TrivoxError
from trivox.evaluation.report.figures import overlay_figure
from trivox.evaluation.report.page import CasePictures, write_report
from trivox.evaluation.report.pages import Part, rendered
from trivox.tasks.console import Console
from trivox.tasks.labels.pictures import case_view
from trivox.tasks.suspects.judging import LIMIT, Suspect
from trivox.tasks.suspects.search import Search
from trivox.volumes.geometry import canonical_orientation
from trivox.volumes.volume import Shape

MOST = 50
"""Cases with a picture."""


def write_suspects(
    out: Path, dataset: Dataset, search: Search, console: Console
) -> None:
    """Write the page: all doubtful cases in a table, and pictures of the first 50."""
    cases = {case.name: case for case in dataset.training_cases}
    pictures = []
    first = search.suspects[:MOST]
    for suspect in console.track(first, len(first), "drawing"):
        title = f"{suspect.case}: {suspect.reasons[0]}"
        file = search.predictions[suspect.case]
        try:
            figure = _figure(cases[suspect.case], dataset, file, suspect)
        except TrivoxError as error:
            console.say(f"{suspect.case}: no picture ({error})")
            continue
        caption = f"{suspect.case}: {'; '.join(suspect.reasons)}"
        pictures.append(CasePictures(title, [(caption, figure)]))
    table = rendered("suspects_part.html.j2", suspects=search.suspects, limit=LIMIT)
    write_report(
        out,
        title=f"Labels of {dataset.name} to look at",
        parts=[Part(body=table, cases=search.compared)],
        pictures=pictures,
        warnings=[f"not compared: {line}" for line in search.asides],
        facts={
            "cases compared": str(search.compared),
            "to look at": str(len(search.suspects)),
        },
    )


def _figure(case: Case, dataset: Dataset, file: Path, suspect: Suspect) -> bytes:
    """Three planes through the most doubtful voxel."""
    view = case_view(case, dataset, file, {})
    return overlay_figure(
        view.image[0],
        view.prediction,
        view.reference,
        spacing=view.spacing,
        names=view.labels,
        title=suspect.case,
        at=_on_canonical_axes(case, dataset, suspect),
    )


def _on_canonical_axes(case: Case, dataset: Dataset, suspect: Suspect) -> Shape | None:
    """The most doubtful voxel as pictures have it; None where no place is meant."""
    each = suspect.disagreement
    if not each.depth_mm:
        return None
    place = each.island_place if suspect.strongest == "island" else each.place
    image = read_channels(case, channels=len(dataset.channels))
    mark = np.zeros((1, *image.shape), bool)
    mark[0][place] = True
    turned = canonical_orientation(image.affine).apply(mark)[0]
    z, y, x = np.argwhere(turned)[0].tolist()
    return z, y, x
