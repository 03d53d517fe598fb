"""A run or its metrics as one page: `trivox.report`."""

from pathlib import Path

from trivox.evaluation.folders.labels import read_metrics
from trivox.evaluation.folders.measured import changed_since
from trivox.evaluation.metrics.content import MetricsFile
from trivox.outputs import PAGE, Contents, names_there, require_file, require_folder
from trivox.tasks.choice import task_of, task_of_run
from trivox.tasks.console import Console, Quiet
from trivox.tasks.report import report_metrics, report_run, run_metrics
from trivox.verbs.texts import described


@described
def report(
    source: Path | str,
    out: Path | str | None = None,
    *,
    console: Console | None = None,
) -> Path:
    """Write the HTML report of a run or of a metrics.json.

    Returns the page's path. Raises `BundleError` for a run without validation and a file that is no
    metrics.json.
    """
    path = Path(source)
    usual = path / "report.html" if path.is_dir() else path.with_suffix(".html")
    target = usual if out is None else Path(out)
    require_file(target, PAGE)
    console = console or Quiet()
    if path.is_dir():
        _require_pages(target.with_name(f"{target.stem}-3d"))
        # a run that is not finished has nothing to report
        _say_changes(run_metrics(path), console)
        return report_run(task_of_run(path), path, console=console, out=target)
    metrics = read_metrics(path)
    _say_changes(metrics, console)
    report_metrics(task_of(metrics), path, target)
    console.say(f"report: {target}")
    return target


def _say_changes(metrics: MetricsFile, console: Console) -> None:
    """What the page says too: figures that are older than the files they measured."""
    for line in changed_since(metrics):
        console.say(f"warning: {line}")


def _require_pages(folder: Path) -> None:
    """Raise unless the pages in a folder are those of a report."""
    pages = dict.fromkeys(names_there(folder, ["*.html"]), PAGE)
    require_folder(folder, Contents("report", pages))
