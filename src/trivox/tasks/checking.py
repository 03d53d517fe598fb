"""The check before training: what is wrong with a case sets it aside, what is wrong with
the dataset stops.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from trivox.datasets.checks.dataset import check_dataset
from trivox.datasets.checks.findings import Finding, Report, read_findings
from trivox.datasets.dataset import Dataset
from trivox.datasets.splits import Split
from trivox.errors import DataError
from trivox.files import read_json, write_json
from trivox.schema import stamped
from trivox.tasks.console import Console

OF_A_CASE = frozenset(
    (
        "unusable-case",
        "missing-file",
        "empty-file",
        "unreadable",
        "missing-channel",
        "channel-count",
        "geometry-mismatch",
        "nan-or-inf",
        "fractional-label",
        "unknown-label",
        "unpaired-image",
        "unpaired-label",
        "geometry-impossible",
        "no-views",
    )
)
"""Errors that concern one case alone: without it training is right."""
ALOUD = ("declaration", "mostly-empty")
"""Warnings that are said before training, not only written down."""
SHOWN = 5
LEFT_OUT = "set_aside"
EMPTY = "empty-label"


def require_checked(
    dataset: Dataset, file: Path, console: Console, *, task: str
) -> Dataset:
    """The dataset as it is trained on, once it was checked; `file` holds what was found,
    and a later stage of the same run trusts it.

    Cases with errors of their own are set aside, with a line each, if they are fewer
    than half of those to train on. Raises `DataError` with the first problems if they
    are more, or others would make training wrong.
    """
    earlier = read_json(file) if file.exists() else None
    if isinstance(earlier, dict) and earlier.get("errors") == 0:
        return dataset
    report = check_dataset(
        dataset, progress=lambda cases, total: console.track(cases, total, "checking")
    )
    reasons = reasons_of(report)
    rest = without_cases(dataset, reasons)
    stopping = [each for each in report.errors if each.code not in OF_A_CASE]
    if not _is_enough(rest, reasons):
        stopping = [*report.errors]
    aside = {} if stopping else reasons
    write_json(file, stamped({**report.to_json(), LEFT_OUT: aside}, task))
    if stopping:
        first = "; ".join(str(finding) for finding in stopping[:2])
        raise DataError(
            f"{dataset.root}: {len(stopping)} problems would make training wrong: "
            f"{first}; all: {file}"
        )
    for finding in report.warnings:
        if finding.code in ALOUD:
            console.say(f"warning: {finding.message}; {finding.fix}")
    _say_aside(aside, file, console)
    note = f", {len(report.warnings)} warnings (see {file})" if report.warnings else ""
    console.say(f"checked {report.checked_cases} cases ({dataset.layout} layout){note}")
    return rest


def still_set_aside(dataset: Dataset, file: Path) -> Dataset:
    """The dataset without the cases that a check, whose findings `file` holds, set
    aside.
    """
    return without_cases(dataset, set_aside_in(file))


def set_aside_in(file: Path) -> Mapping[str, str]:
    """The cases that a check set aside, and why; `file` holds what it found."""
    earlier = read_json(file) if file.exists() else None
    aside = earlier.get(LEFT_OUT) if isinstance(earlier, dict) else None
    return aside if isinstance(aside, dict) else {}


def without_cases(dataset: Dataset, reasons: Mapping[str, str]) -> Dataset:
    """The dataset with a complaint for each of the cases named."""
    cases = tuple(
        case.with_complaint(case.complaint or reasons.get(case.name, ""))
        for case in dataset.cases
    )
    return dataset.model_copy(update={"cases": cases})


def require_foreground(
    dataset: Dataset, splits: Sequence[Split], folds: Iterable[int], file: Path
) -> None:
    """Raise `DataError` for a fold, of those to train, of whose training cases no label
    map holds a label; `file` holds what was found by the check.
    """
    findings = read_findings(file) if file.exists() else ()
    empty = {each.case for each in findings if each.code == EMPTY}
    labelled = {case.name for case in dataset.training_cases if case.label is not None}
    if dataset.labels is None or not labelled:
        return
    for fold in folds:
        names = labelled.intersection(splits[fold].train)
        if names and names <= empty:
            raise DataError(
                f"{dataset.root}: none of the {len(names)} label maps that fold {fold} "
                "is trained on holds a label; choose another --fold, or declare folds "
                "that have some in each training"
            )


def reasons_of(report: Report) -> dict[str, str]:
    """The first error of each case that has errors of its own."""
    reasons: dict[str, str] = {}
    for finding in report.errors:
        if finding.code in OF_A_CASE:
            reasons.setdefault(finding.case, _reason(finding))
    return reasons


def _reason(finding: Finding) -> str:
    return f"{finding.message} [{finding.code}]; {finding.fix}"


def _is_enough(rest: Dataset, reasons: Collection[str]) -> bool:
    """Whether two cases to train on are left, and more than are set aside."""
    aside = [c for c in rest.cases if c.split != "test" and c.name in reasons]
    left = len(rest.training_cases)
    return not aside or (left >= 2 and left > len(aside))


def _say_aside(aside: Mapping[str, str], file: Path, console: Console) -> None:
    for name, reason in [*aside.items()][:SHOWN]:
        console.say(f"{name}: set aside: {reason}")
    if len(aside) > SHOWN:
        console.say(f"{len(aside) - SHOWN} more cases are set aside, see {file}")
