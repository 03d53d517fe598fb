"""Which prepared cases still are what their files would give, and which are prepared
again.
"""

import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from trivox.datasets.content import CaseContent, is_made_of
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.errors import PlanError, few
from trivox.locks import reading, require_unread

Say = Callable[[str], None]
VERB = "preprocess"
CHANGED = (
    "no longer matches its files and is",
    "no longer match their files and are",
)
UNKNOWN = (
    "does not say what it was made from and is",
    "do not say what they were made from and are",
)
"""Of one case and of several."""


_releases: weakref.WeakKeyDictionary[object, Callable[[], object]]
_releases = weakref.WeakKeyDictionary()


def unheard(line: str) -> None:
    """Nobody listens."""


class CaseStore(Protocol):
    """A folder of prepared cases."""

    folder: Path

    def clear(self) -> None:
        """Remove all cases and the key."""

    def names(self) -> list[str]:
        """Names of the cases, whole or begun."""

    def has(self, name: str) -> bool:
        """Whether a case is complete."""

    def content(self, name: str) -> CaseContent | None:
        """What a complete case was made of, if that was recorded."""

    def remove(self, name: str) -> None:
        """Remove a case."""


def cases_to_prepare(
    store: CaseStore,
    dataset: Dataset,
    labels: LabelScheme | None,
    *,
    sole: bool,
    say: Say,
) -> list[Case]:
    """The training cases that are not in the store, or are there as they were before
    their files changed; the latter are removed, and said. Raises `BusyError` where a
    training of another process reads what would be removed.

    sole: the store is of this dataset alone, so that cases which it no longer holds are
    removed too.
    """
    todo = []
    changed = []
    unknown = []
    for case in dataset.training_cases:
        content = store.content(case.name) if store.has(case.name) else None
        if content is not None and is_made_of(case, labels, content):
            continue
        todo.append(case)
        if content is not None:
            changed.append(case.name)
        elif store.has(case.name):
            unknown.append(case.name)
    total = len(dataset.training_cases)
    _say_again(changed, total, *CHANGED, say=say)
    _say_again(unknown, total, *UNKNOWN, say=say)
    wanted = {case.name for case in dataset.training_cases}
    gone = [name for name in store.names() if name not in wanted]
    if sole and gone:
        count = _counted(len(gone), "prepared case is", "prepared cases are")
        say(f"{count} not in the dataset and removed: {few(gone)}")
        changed += gone
    removed = [*changed, *unknown]
    require_unread(store.folder, removed)
    for name in removed:
        store.remove(name)
    return todo


def hold(store: CaseStore, dataset: Dataset) -> None:
    """Keep other processes from replacing the training cases until `release`, or until
    the store is gone.
    """
    held = ExitStack()
    names = [case.name for case in dataset.training_cases]
    held.enter_context(reading(store.folder, "train", names))
    _releases[store] = weakref.finalize(store, held.close)


def release(store: object) -> None:
    """Let others replace the cases of a store again."""
    let_go = _releases.pop(store, None)
    if let_go is not None:
        let_go()


def make_room(store: CaseStore, *, replace: bool, say: Say) -> None:
    """Empty a store that was made under another plan, and say so; raises `PlanError`
    unless `replace`.
    """
    if not replace:
        raise PlanError(
            f"{store.folder}: was prepared under another plan; "
            "use --plan with its plan.json, or prepare anew"
        )
    names = store.names()
    require_unread(store.folder, names)
    if names:
        count = _counted(len(names), "case was", "cases were")
        say(f"{count} prepared under another plan and removed: {few(names)}")
    store.clear()


def _say_again(
    names: Sequence[str], total: int, one: str, many: str, *, say: Say
) -> None:
    """Say how many of the prepared cases are prepared again, which, and why."""
    if names:
        why = one if len(names) == 1 else many
        say(
            f"{len(names)} of {total} prepared cases {why} prepared again: {few(names)}"
        )


def _counted(count: int, one: str, many: str) -> str:
    return f"1 {one}" if count == 1 else f"{count} {many}"
