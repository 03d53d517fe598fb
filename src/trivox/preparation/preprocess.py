"""Preparing all training cases of a dataset into a store: in parallel, resumable,
naming the case that fails.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from trivox.datasets.content import content_of
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import IGNORED
from trivox.datasets.reading import read_case
from trivox.errors import DataError, TrivoxError, of_case
from trivox.files import read_json, remove_leftovers, write_json
from trivox.locks import claimed
from trivox.planning.plan import ImagePlan, Plan
from trivox.preparation.grid import prepare
from trivox.preparation.renewal import (
    VERB,
    Say,
    cases_to_prepare,
    hold,
    make_room,
    unheard,
)
from trivox.preparation.store import CONTENT, Store

ShowNames = Callable[[Iterable[str], int], Iterable[str]]
"""Shows names as they come, of so many."""


def unseen(names: Iterable[str], total: int) -> Iterable[str]:
    """Progress that nobody is shown."""
    return names


def preprocess(
    dataset: Dataset,
    plan: ImagePlan,
    folder: Path,
    *,
    workers: int = 2,
    replace: bool = True,
    progress: ShowNames = unseen,
    say: Say = unheard,
) -> Store:
    """Prepare every training case under `folder`; finished cases of the same plan and
    the same files are kept.

    replace: cases prepared under another plan, and those that the dataset does not
    hold, are removed; otherwise the former are a `PlanError` and the latter left alone.
    progress: is shown the names as they are done; say: what was done again, and why.

    Threads, not processes: reading, resampling and compression release the interpreter,
    and a thread cannot die silently. Another process that prepares in the same folder is
    waited for. Raises `DataError` naming all cases that failed, after the others are
    done.
    """
    labels = plan.labels if isinstance(plan, Plan) else None
    with claimed(folder, VERB, wait=True, say=say):
        store = open_store(folder, plan, replace=replace, say=say)
        todo = cases_to_prepare(store, dataset, labels, sole=replace, say=say)
        prepare_one = partial(_prepare_one, plan=plan, store=store)
        for_every_case(todo, prepare_one, workers=workers, progress=progress)
        hold(store, dataset)
    return store


def for_every_case(
    cases: Sequence[Case],
    prepare_one: Callable[[Case], None],
    *,
    workers: int,
    progress: ShowNames,
) -> None:
    """Prepare cases in threads; raises `DataError` with the first that failed, after
    the others are done.
    """
    failures: list[str] = []

    def attempt(case: Case) -> str:
        try:
            prepare_one(case)
        except (TrivoxError, MemoryError) as error:
            failures.append(of_case(case.name, str(error)))
        return case.name

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        for _ in progress(pool.map(attempt, cases), len(cases)):
            pass
    if failures:
        more = f" (and {len(failures) - 3} more)" if len(failures) > 3 else ""
        raise DataError(
            f"{len(failures)} of {len(cases)} cases failed: "
            f"{'; '.join(sorted(failures)[:3])}{more}"
        )


def open_store(
    folder: Path, plan: ImagePlan, *, replace: bool = True, say: Say = unheard
) -> Store:
    """The store in `folder`; cases prepared under another plan are removed, or refused
    unless `replace`.
    """
    store = Store(folder)
    key = plan.preparation_key
    if store.key_file.exists() and read_json(store.key_file) != key:
        make_room(store, replace=replace, say=say)
    if not store.key_file.exists():
        write_json(store.key_file, key)
    remove_leftovers(folder)
    return store


def _prepare_one(case: Case, plan: ImagePlan, store: Store) -> None:
    labels = plan.labels if isinstance(plan, Plan) else None
    content = content_of(case, labels)  # before it is read: a later change is noticed
    read = read_case(
        case,
        channels=len(plan.channels),
        labels=labels,
        orientation=plan.grid.orientation,
    )
    prepared = prepare(read, plan)
    facts = {
        "case": case.name,
        "patient": case.patient,
        "source_spacing": list(read.spacing),
        CONTENT: content.model_dump(mode="json"),
    }
    image = prepared.image.numpy()
    if prepared.label is None:
        # nothing is known where only the class of a case is
        unlabelled = 0 if labels is None else IGNORED
        label = np.full(image.shape[1:], unlabelled, np.int16)
    else:
        label = prepared.label.numpy()
    store.write(case.name, image, label, facts)
