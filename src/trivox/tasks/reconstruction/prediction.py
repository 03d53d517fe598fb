"""Predicting exams: volumes, a figure of each, and how close they come where the CT is
known.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from trivox.datasets.dataset import Case
from trivox.datasets.exams import read_exam
from trivox.evaluation.metrics.content import VolumeMetrics
from trivox.evaluation.metrics.volumes import measure_volume
from trivox.files import write_bytes, write_json
from trivox.inference.descriptions import SYNTHETIC
from trivox.inference.reconstructor import Reconstruction
from trivox.schema import stamped
from trivox.tasks.reconstruction.pictures import exam_figure
from trivox.tasks.reconstruction.planning import TASK
from trivox.volumes.formats import read_volume


class ReconstructedFile(TypedDict):
    """What CASE.json says of a reconstruction whose CT is known, beside its task and
    version: how many views it was made of, and its metrics.
    """

    case: str
    notice: str
    views: int
    volume: VolumeMetrics


def write_beside(
    case: Case, result: Reconstruction, out: Path, *, window: tuple[float, float]
) -> Mapping[str, Any]:
    """The figure of a case and, where its CT is known, `CASE.json` with its metrics;
    returns the names of both for the record.
    """
    figure = out / f"{case.name}.png"
    numbers = out / f"{case.name}.json"
    write_bytes(figure, exam_figure(case, result.volume, title=case.name))
    if case.volume is None:
        return {"figure": figure.name}
    row = measure_volume(
        result.volume,
        read_volume(case.volume, choice=case.choice),
        window=window,
        projections=read_exam(case),
    )
    content: ReconstructedFile = {
        "case": case.name,
        "notice": SYNTHETIC,
        "views": result.views,
        "volume": row,
    }
    write_json(numbers, stamped(content, TASK))
    return {"figure": figure.name, "metrics": numbers.name}
