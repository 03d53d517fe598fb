"""Looking for what would make training wrong: `trivox.check`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.checks.findings import Report
from trivox.datasets.class_tables import with_classes
from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import load_dataset
from trivox.errors import UsageError
from trivox.files import write_json
from trivox.outputs import CHECK, PAGE
from trivox.schema import stamped
from trivox.tasks.console import Console, Quiet
from trivox.tasks.foresight import planned_losses
from trivox.tasks.suspects.page import write_suspects
from trivox.tasks.suspects.search import search
from trivox.verbs.folders import require_apart, require_result
from trivox.verbs.settings import series_choice
from trivox.verbs.texts import described


@dataclass(frozen=True)
class Checked:
    """A dataset and what was found in it.

    file: of the findings; page: of pictures of labels that are probably wrong; None if
    they were not written.
    """

    dataset: Dataset
    report: Report
    file: Path | None = None
    page: Path | None = None

    @property
    def task(self) -> str | None:
        """What is learnt from the dataset, None where that is not known."""
        return self.dataset.task

    @property
    def is_ready(self) -> bool:
        """Whether training can begin: nothing would make it wrong."""
        return not self.report.errors

    @property
    def class_counts(self) -> dict[str, int]:
        """Cases of each class, and those whose class is not known."""
        counts = Counter(case.class_name for case in self.dataset.cases)
        names = (*self.dataset.classes, None)
        return {name or "not known": counts[name] for name in names if counts[name]}


@described
def check(
    dataset: Path | str,
    *,
    out: Path | str | None = None,
    classes: Path | str | None = None,
    series: str | None = None,
    slice_tolerance: float | None = None,
    predictions: Path | str | None = None,
    page: Path | str | None = None,
    console: Console | None = None,
) -> Checked:
    """Look for everything that would make training wrong.

    The report's errors would, its warnings might. With predictions of networks that were
    not trained on the cases, labels that are probably wrong are among the warnings.
    Raises `FormatError` where there is no dataset at all, `DataError` where fewer than 8
    cases can be compared with predictions.
    """
    if page is not None and predictions is None:
        raise UsageError("--page shows what --predictions finds; give both")
    if out is not None:
        require_result(Path(out), CHECK)
    if page is not None:
        require_result(Path(page), PAGE)
    if out is not None and page is not None:
        require_apart(Path(out), Path(page))
    choice = series_choice(series, slice_tolerance)
    data = load_dataset(Path(dataset)).read_by(choice)
    if classes is not None:
        data = with_classes(data, Path(classes))
    console = console or Quiet()
    report = check_dataset(
        data, progress=lambda cases, total: console.track(cases, total, "checking")
    )
    if data.labels is not None and not report.errors:
        report = report.also(planned_losses(data, console))
    if predictions is not None:
        suspects = search(data, Path(predictions), console)
        report = report.also(suspects.findings)
        if page is not None:
            write_suspects(Path(page), data, suspects, console)
    if out is not None:
        write_json(Path(out), stamped(report.to_json(), data.task))
    return Checked(
        data,
        report,
        file=None if out is None else Path(out),
        page=None if page is None else Path(page),
    )
