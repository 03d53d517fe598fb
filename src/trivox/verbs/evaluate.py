"""Predictions against references: `trivox.evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trivox.config.choices import ConventionName
from trivox.evaluation.folders.measured import warnings_in
from trivox.evaluation.folders.rater_words import rater_lines
from trivox.evaluation.metrics.content import MetricsFile
from trivox.files import write_json
from trivox.outputs import METRICS
from trivox.tasks.choice import task_of_references
from trivox.tasks.options import EvaluateOptions
from trivox.verbs.folders import require_result
from trivox.verbs.settings import Settings, parsed
from trivox.verbs.texts import described


@dataclass(frozen=True)
class Evaluation:
    """What was measured.

    metrics: content of the file; headline: its most important figures in one line.
    """

    file: Path
    metrics: MetricsFile = field(repr=False)
    headline: str

    @property
    def warnings(self) -> list[str]:
        """What a reader of the figures has to know."""
        return warnings_in(self.metrics)

    @property
    def raters(self) -> list[str]:
        """How well several raters and the model agree, in lines; empty for one rater."""
        section = self.metrics.get("raters")
        return [] if section is None else rater_lines(section)


@described
def evaluate(
    predictions: Path | str,
    references: Path | str,
    out: Path | str = Path("metrics.json"),
    *,
    convention: ConventionName = "trivox",
    tolerance_mm: float | None = None,
    set: Settings = None,
    classes: Path | str | None = None,
    whole: str | None = None,
    reference: Sequence[Path | str] = (),
) -> Evaluation:
    """Measure predictions against references, with confidence intervals.

    Dice, HD95 and more of each label or region; macro-F1, AUC and more of the classes,
    if the predictions hold a classes.csv and the classes of the references are known.
    If the references are CTs (volumes that reach below -100 HU, or a dataset of
    X-rays): PSNR, SSIM, MAE and more; --set window=[-1024,1476] says in which HU.
    With further label maps of the same cases, by other raters: how well raters agree
    with one another, with the model, and the model with what they agree on.
    Raises `DataError` if no case is in both, `GeometryError` for different grids.
    """
    require_result(Path(out), METRICS)
    options = EvaluateOptions(
        convention=convention,
        tolerance_mm=tolerance_mm,
        settings=parsed(set),
        classes=None if classes is None else Path(classes),
        whole=whole,
        raters=tuple(Path(path) for path in reference),
    )
    task = task_of_references(Path(references))
    metrics = task.evaluate(Path(predictions), Path(references), options)
    write_json(Path(out), metrics)
    return Evaluation(Path(out), metrics, task.headline(metrics))
