"""What a run was made from: its cases, their files, what is declared about them, and
its plan. A run that began on other data or under another plan is never gone on with.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from trivox.datasets.content import CaseContent, content_of, is_made_of
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.errors import DataError, PlanError, TrivoxError, few
from trivox.files import read_json, write_json
from trivox.schema import Frozen
from trivox.tasks.console import Console

FILE = "sources.json"
PLAN = "plan.json"
DERIVED = ("check.json", PLAN)
"""Files in a run that belong to its data."""


class CaseOrigin(Frozen):
    """A case of a run: its files, and what is declared about it.

    clinical: what clinical columns say; None in runs of versions that did not record it.
    """

    content: CaseContent
    patient: str
    split: str
    class_name: str | None
    clinical: dict[str, str] | None = None


class RunOrigin(Frozen):
    """Content of `sources.json`; plan: what training goes by, once it is decided."""

    format_version: int = 1
    task: str | None
    channels: tuple[str, ...]
    classes: tuple[str, ...]
    labels: LabelScheme | None
    cases: dict[str, CaseOrigin]
    plan: dict[str, Any] | None = None


def require_same_content(
    dataset: Dataset, out: Path, console: Console, *, begun: bool
) -> None:
    """Raise `DataError` naming what changed in the data since a run began.

    begun: whether it has trained; otherwise its check and plan are made again, with a
    line. A run of 0.1.0, which did not record its data, is taken to be of the same.
    """
    recorded = read_origin(out)
    if recorded is None:
        return
    changes = differences(dataset, recorded)
    if changes and begun:
        raise DataError(
            f"{out}: {'; '.join(changes)} since this run began; train into another "
            "--out, or restore the data"
        )
    if changes:
        console.say(f"{out}: {'; '.join(changes)}; checked and planned again")
        for name in DERIVED:
            (out / name).unlink(missing_ok=True)


def write_content(
    dataset: Dataset, out: Path, *, workers: int, console: Console
) -> None:
    """Record what the run is made from; what was recorded before and looks the same is
    not read again.
    """
    earlier = read_origin(out)
    recorded = {} if earlier is None else earlier.cases

    def origin(case: Case) -> CaseOrigin:
        before = recorded.get(case.name)
        content = None if before is None else before.content
        return CaseOrigin(
            content=content_of(case, dataset.labels, content),
            patient=case.patient,
            split=case.split,
            class_name=case.class_name,
            clinical=case.clinical,
        )

    cases = dataset.training_cases
    with ThreadPoolExecutor(max(1, workers)) as pool:
        made = console.track(pool.map(origin, cases), len(cases), "recording files")
        origins = dict(zip((case.name for case in cases), made, strict=True))
    now = RunOrigin(
        task=dataset.task,
        channels=dataset.channels,
        classes=dataset.classes,
        labels=dataset.labels,
        cases=origins,
        plan=None if earlier is None else earlier.plan,
    )
    write_json(out / FILE, now.model_dump(mode="json"))


def restore_plan(out: Path) -> None:
    """Write the plan of a run that has begun, where its file is gone."""
    recorded = read_origin(out)
    file = out / PLAN
    if recorded is not None and recorded.plan is not None and not file.exists():
        write_json(file, recorded.plan)


def require_same_plan(plan: BaseModel, out: Path, *, begun: bool) -> None:
    """Raise `PlanError` naming what changed in the plan since a run began; otherwise
    record it.

    begun: whether it has trained. A run of 0.1.0, which did not record its plan, is
    taken to go by the same.
    """
    recorded = read_origin(out)
    if recorded is None:
        return
    now = plan.model_dump(mode="json")
    if begun and recorded.plan is not None:
        changed = _changed_fields(plan, recorded.plan)
        if changed:
            raise PlanError(
                f"{out / PLAN}: {few(changed)} changed since this run began; delete "
                "this file to go on with the plan of the run, or train into another "
                "--out"
            )
    updated = recorded.model_copy(update={"plan": now})
    write_json(out / FILE, updated.model_dump(mode="json"))


def _changed_fields(plan: BaseModel, recorded: dict[str, Any]) -> list[str]:
    """Fields that a recorded plan, read as this version reads it, has otherwise."""
    try:
        before = type(plan).model_validate(recorded)
    except ValidationError:
        return ["its form"]
    return [
        field
        for field in type(plan).model_fields
        if getattr(plan, field) != getattr(before, field)
    ]


def read_origin(out: Path) -> RunOrigin | None:
    """What a run was made from; None where that was not recorded."""
    try:
        return RunOrigin.model_validate(read_json(out / FILE))
    except (TrivoxError, ValidationError):
        return None


def differences(dataset: Dataset, recorded: RunOrigin) -> list[str]:
    """What is not as it was recorded, in words."""
    cases = {case.name: case for case in dataset.training_cases}
    before = recorded.cases
    both = [name for name in cases if name in before]
    changed = [
        name for name in both if _differs(cases[name], dataset.labels, before[name])
    ]
    new = [name for name in cases if name not in before]
    gone = [name for name in before if name not in cases]
    words = [
        _counted(changed, "changed", "changed"),
        _counted(new, "is new", "are new"),
        _counted(gone, "is gone", "are gone"),
    ]
    words += [
        f"the {what} changed"
        for what in ("channels", "classes", "labels")
        if getattr(dataset, what) != getattr(recorded, what)
    ]
    return [word for word in words if word]


def _differs(case: Case, labels: LabelScheme | None, before: CaseOrigin) -> bool:
    declared = (case.patient, case.split, case.class_name)
    if declared != (before.patient, before.split, before.class_name):
        return True
    if before.clinical not in (None, case.clinical):
        return True
    return not is_made_of(case, labels, before.content)


def _counted(names: Sequence[str], one: str, many: str) -> str:
    if not names:
        return ""
    verb = f"case {one}" if len(names) == 1 else f"cases {many}"
    return f"{len(names)} {verb} ({few(names)})"
