"""Figures of reconstructed exams: X-rays, synthetic CT, reference, error."""

from pathlib import Path

from trivox.datasets.dataset import Case
from trivox.datasets.exams import read_exam
from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.errors import TrivoxError
from trivox.evaluation.folders.volume_summary import COMPARED, TARGET
from trivox.evaluation.metrics.content import MetricsFile
from trivox.evaluation.metrics.volumes import WINDOW, grid_of, on_one_grid
from trivox.evaluation.report.page import CasePictures
from trivox.evaluation.report.volume_figures import volume_figure
from trivox.tasks.console import Console
from trivox.tasks.report import ranked_cases
from trivox.volumes.formats import read_volume
from trivox.volumes.geometry import canonical_orientation, reorient
from trivox.volumes.volume import Volume


def exam_figure(case: Case, prediction: Volume, *, title: str) -> bytes:
    """The figure of a case as PNG; without the rows of the reference where its CT is
    not known.
    """
    exam = read_exam(case)
    if case.volume is None:
        grid = grid_of(prediction, isocentre=exam.isocentre)
        orientation = canonical_orientation(prediction.affine)
        volume = reorient(prediction, orientation).array[0]
        return volume_figure(
            volume, None, spacing=grid.spacing, title=title, xrays=exam.xrays
        )
    pair = on_one_grid(
        prediction,
        read_volume(case.volume, choice=case.choice),
        window=WINDOW,
        isocentre=exam.isocentre,
    )
    return volume_figure(
        pair.prediction,
        pair.reference,
        spacing=pair.grid.spacing,
        title=title,
        xrays=exam.xrays,
    )


def picture_exams(
    run: Path, metrics: MetricsFile, *, console: Console
) -> list[CasePictures]:
    """Best, median and worst validation case by PSNR; one whose files are gone or
    damaged is left out with a line.
    """
    cases = {case.name: case for case in read_saved_dataset(run / "dataset.json").cases}
    scores = {
        name: targets.get(TARGET, {}).get(COMPARED)
        for name, targets in metrics["cases"].items()
    }
    decibels = {name: score for name, score in scores.items() if score is not None}
    pictures = []
    for name, ranks in ranked_cases(decibels).items():
        heading = f"{', '.join(ranks)} case: {name}"
        try:
            volume = read_volume(run / "validation" / "predictions" / f"{name}.nii.gz")
            figure = exam_figure(cases[name], volume, title=heading)
        except (TrivoxError, KeyError) as error:
            console.say(f"{name}: no picture ({error})")
            continue
        caption = f"{heading}, PSNR {decibels[name]:.2f} dB; synthetic CT, not acquired"
        pictures.append(CasePictures(heading, [(caption, figure)]))
    return pictures
