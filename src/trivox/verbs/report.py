"""A run or its metrics as one page: `trivox.report`."""

from pathlib import Path

from trivox.evaluation.folders.labels import read_metrics
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
    target = None if out is None else Path(out)
    console = console or Quiet()
    if path.is_dir():
        run_metrics(path)  # a run that is not finished has nothing to report
        return report_run(task_of_run(path), path, console=console, out=target)
    target = target or path.with_suffix(".html")
    report_metrics(task_of(read_metrics(path)), path, target)
    console.say(f"report: {target}")
    return target
