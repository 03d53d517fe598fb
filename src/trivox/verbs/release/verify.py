"""Whether figures follow from files: `trivox.verify`."""

from contextlib import suppress
from pathlib import Path

from trivox.errors import BundleError, DataError, TrivoxError, few
from trivox.evaluation.folders.labels import read_metrics
from trivox.tasks.choice import task_of, task_of_run
from trivox.tasks.console import Console, Quiet
from trivox.tasks.verification.checking import Verification, verify_metrics, verify_run
from trivox.tasks.verification.record import remove_record, write_record
from trivox.verbs.report import report
from trivox.verbs.texts import described


@described
def verify(source: Path | str, *, console: Console | None = None) -> Verification:
    """Compare every number of a run or a metrics.json with the files that it is of.

    Of a run also its data, its folds by case and patient, its weights, and a case that
    they predict again; its report says afterwards that it was verified. Raises
    `DataError` naming what does not agree.
    """
    path = Path(source)
    console = console or Quiet()
    if not path.exists():
        raise DataError(f"{path}: not found; give a run or a metrics.json")
    if path.is_file():
        verification = verify_metrics(path, task_of(read_metrics(path)))
    else:
        verification = _verified_run(path, console)
    for line in verification.lines:
        console.say(line)
    if verification.disagreements:
        count = len(verification.disagreements)
        first = few(verification.disagreements, separator="; ", shown=3)
        message = f"{path}: {count} things do not agree: {first}"
        raise DataError(message).with_result(verification)
    return verification


def _verified_run(run: Path, console: Console) -> Verification:
    task = task_of_run(run)
    if not (run / "dataset.json").is_file():
        raise BundleError(f"{run}: no run with its dataset.json; give the whole run")
    verification = verify_run(run, task, console)
    if verification.disagreements:
        remove_record(run)
    else:
        write_record(
            run,
            task.name,
            numbers=verification.numbers,
            cases=verification.cases,
            unchecked=verification.unchecked,
        )
    if (run / "report.html").is_file():
        with suppress(*([TrivoxError] if verification.disagreements else [])):
            report(run, console=console)
    return verification
