"""Preparing all training cases of a dataset into a store: in parallel, resumable,
naming the case that fails.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import IGNORED
from trivox.datasets.reading import read_case
from trivox.errors import DataError, PlanError, TrivoxError
from trivox.files import read_json, write_json
from trivox.planning.plan import ImagePlan, Plan
from trivox.preparation.grid import prepare
from trivox.preparation.store import Store


def preprocess(
    dataset: Dataset,
    plan: ImagePlan,
    folder: Path,
    *,
    workers: int = 2,
    replace: bool = True,
    progress: Callable[[Iterable[str], int], Iterable[str]] = lambda names, total: (
        names
    ),
) -> Store:
    """Prepare every training case under `folder`; finished cases of the same plan are
    kept.

    replace: cases prepared under another plan are removed; otherwise they are a
    `PlanError`.

    Threads, not processes: reading, resampling and compression release the interpreter,
    and a thread cannot die silently. Raises `DataError` naming all cases that failed,
    after the others are done.
    """
    store = open_store(folder, plan, replace=replace)
    todo = [case for case in dataset.training_cases if not store.has(case.name)]
    failures: list[str] = []
    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        done = pool.map(lambda case: _prepare_one(case, plan, store, failures), todo)
        for _ in progress(done, len(todo)):
            pass
    if failures:
        more = f" (and {len(failures) - 3} more)" if len(failures) > 3 else ""
        raise DataError(
            f"{len(failures)} of {len(todo)} cases failed: {'; '.join(sorted(failures)[:3])}{more}"
        )
    return store


def open_store(folder: Path, plan: ImagePlan, *, replace: bool = True) -> Store:
    """The store in `folder`; cases prepared under another plan are removed, or refused
    unless `replace`.
    """
    store = Store(folder)
    key = plan.preparation_key
    if store.key_file.exists() and read_json(store.key_file) != key:
        if not replace:
            raise PlanError(
                f"{folder}: was prepared under another plan; use --plan with its plan.json, or prepare anew"
            )
        store.clear()
    if not store.key_file.exists():
        write_json(store.key_file, key)
    for leftover in folder.glob(".tmp-*"):
        leftover.unlink(missing_ok=True)
    return store


def _prepare_one(case: Case, plan: ImagePlan, store: Store, failures: list[str]) -> str:
    labels = plan.labels if isinstance(plan, Plan) else None
    # Nothing is known where only the class of a case is.
    unlabelled = 0 if labels is None else IGNORED
    try:
        read = read_case(case, channels=len(plan.channels), labels=labels)
        prepared = prepare(read, plan)
        facts = {
            "case": case.name,
            "patient": case.patient,
            "source_spacing": list(read.spacing),
        }
        image = prepared.image.numpy()
        label = (
            np.full(image.shape[1:], unlabelled, np.int16)
            if prepared.label is None
            else prepared.label.numpy()
        )
        store.write(case.name, image, label, facts)
    except (TrivoxError, MemoryError) as error:
        failures.append(
            f"{case.name}: {error}" if case.name not in str(error) else str(error)
        )
    return case.name
