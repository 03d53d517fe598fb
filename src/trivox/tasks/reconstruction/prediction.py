"""What `trivox predict` does with X-rays: volumes, a figure of each, and how close they
come where the CT is known.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trivox.datasets.dataset import Case
from trivox.datasets.exams import read_exam
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import DataError
from trivox.evaluation.metrics.volumes import evaluate_reconstruction
from trivox.files import atomic_path, write_json
from trivox.inference.descriptions import SYNTHETIC
from trivox.inference.folder import predict_cases
from trivox.inference.reconstructor import Reconstruction, Reconstructor
from trivox.tasks.console import Console
from trivox.tasks.reconstruction.pictures import exam_figure
from trivox.volumes.formats import read_volume


def predict_exams(
    models: Sequence[Path],
    source: Path,
    out: Path,
    *,
    cases: Callable[[Sequence[Case]], Sequence[Case]] = tuple,
    overwrite: bool = False,
    device: str = "auto",
    precision: str = "auto",
    console: Console,
) -> dict[str, dict[str, Any]]:
    """Reconstruct the exams at `source` (a dataset of X-rays or one exam) into `out`;
    returns the records by case.

    `CASE.nii.gz` in HU, `CASE.png`, and `CASE.json` with the metrics where the exam has
    a CT. cases: chooses exams.
    """
    dataset = load_dataset(source)
    if dataset.task != "reconstruction":
        raise DataError(
            f"{source}: holds no X-rays; give exams as 'trivox drr' writes them (views, geometry.json)"
        )
    reconstructor = Reconstructor.load(models, device=device, precision=precision)

    def beside(case: Case, found: Reconstruction) -> Mapping[str, Any]:
        return write_beside(case, found, out, window=reconstructor.plan.window)

    return predict_cases(
        reconstructor,
        cases(dataset.cases),
        out,
        overwrite=overwrite,
        also=beside,
        say=console.say,
        progress=lambda items, total: console.track(items, total, "reconstructing"),
    )


def write_beside(
    case: Case, found: Reconstruction, out: Path, *, window: tuple[float, float]
) -> Mapping[str, Any]:
    """The figure of a case and, where its CT is known, `CASE.json`; returns the names
    of both for the record.
    """
    picture = exam_figure(case, found.volume, title=case.name)
    with atomic_path(out / f"{case.name}.png") as temporary:
        temporary.write_bytes(picture)
    written = {"figure": f"{case.name}.png"}
    file = out / f"{case.name}.json"
    file.unlink(missing_ok=True)
    if case.volume is not None:
        row = evaluate_reconstruction(
            found.volume,
            read_volume(case.volume),
            window=window,
            projections=read_exam(case),
        )
        write_json(
            file,
            {
                "case": case.name,
                "notice": SYNTHETIC,
                "views": found.views,
                "volume": row,
            },
        )
        written["metrics"] = file.name
    return written
