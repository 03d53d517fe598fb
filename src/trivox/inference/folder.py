"""Predicting many cases: resumable, nothing skipped silently, a bad case set aside
while the others go on.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trivox.datasets.dataset import Case
from trivox.errors import ResourceError, TrivoxError
from trivox.files import read_json, remove_leftovers, write_json
from trivox.inference.writing import Record, remove_prediction
from trivox.learning.runtime import out_of_memory

RECORDS = "predictions.json"


class Result(Protocol):
    """The prediction of a case."""

    def write(self, case: Case, out: Path) -> Record:
        """Write its files into `out`; returns what its record says: `output`,
        `warnings` and whatever else there is to say, ready for JSON.
        """


ShowCases = Callable[[Iterable[Case], int], Iterable[Case]]
"""Passes cases on, given how many there are."""
R = TypeVar("R", bound=Result)
Made = TypeVar("Made", bound=Result, covariant=True)


class CasePredictor(Protocol[Made]):
    """A model made ready, with all options of what it is to give."""

    @property
    def identity(self) -> str:
        """Names the weights."""

    def about(self) -> Mapping[str, Any]:
        """What besides the weights decides a prediction, as `predictions.json` has
        it.
        """

    def files(self, case: Case) -> Sequence[str]:
        """Names of the files that the prediction of a case leaves."""

    def predict_case(self, case: Case) -> Made:
        """Predict a case from its files; errors name the case."""

    def finish(self, records: Mapping[str, Record], out: Path) -> None:
        """Write what is written about all cases together."""


def predict_cases(
    predictor: CasePredictor[R],
    cases: Sequence[Case],
    out: Path,
    *,
    overwrite: bool = False,
    also: Callable[[Case, R], Mapping[str, Any]] = lambda case, result: {},
    progress: ShowCases = lambda cases, total: cases,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Record]:
    """Write what `predictor` gives for each case (`out/CASE.nii.gz` and what it was
    asked for beside it) and `out/predictions.json`; returns the records by case.

    also: called with each result, for what else is to be written about it; what it
    returns joins the record. A case done before by the same model with the same
    settings from the same files is kept. A case that fails has `error` in its record
    and no map; a full disk or missing memory while reading or writing ends the work,
    since every later case would fail as well.
    """
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    model = {"model": predictor.identity, **predictor.about()}
    records = {} if overwrite else _earlier(out, model)
    todo = []
    for case in cases:
        names = predictor.files(case)
        if not _done(records.get(case.name), case, out, names):
            todo.append(case)
    if len(todo) < len(cases):
        before = f"{len(cases) - len(todo)} of {len(cases)}"
        say(f"{before} cases were predicted before by this model and are kept")
    # before the first case: a model's name never stands beside another model's maps
    write_json(out / RECORDS, {**model, "cases": records})
    for case in progress(todo, len(todo)):
        record = _predict_one(predictor, case, out, also)
        records[case.name] = record
        if "error" in record:
            say(f"{case.name}: set aside: {record['error']}")
        write_json(out / RECORDS, {**model, "cases": records})
    asked_for = {case.name: records[case.name] for case in cases}
    predictor.finish(asked_for, out)
    return asked_for


def _predict_one(
    predictor: CasePredictor[R],
    case: Case,
    out: Path,
    also: Callable[[Case, R], Mapping[str, Any]],
) -> Record:
    started = time.monotonic()
    record: Record = {"inputs": _inputs(case)}
    try:
        result = predictor.predict_case(case)
        record |= result.write(case, out)
        record |= also(case, result)
    except ResourceError:
        raise
    except (TrivoxError, ValueError, MemoryError, RuntimeError) as error:
        reason = _reason(error)
        remove_prediction(out, case.name)
        record = {"inputs": _inputs(case), "error": reason}
    record["seconds"] = round(time.monotonic() - started, 3)
    return record


def _reason(error: Exception) -> str:
    """Why a case is set aside; raises an error again that is a bug, not the case's
    fault.
    """
    if out_of_memory(error):
        return f"out of memory ({error}); use a smaller case or model, or more memory"
    if isinstance(error, RuntimeError):
        raise error
    return str(error)


def _inputs(case: Case) -> list[str]:
    """The files that a prediction is made from."""
    files = [str(path) for path in case.images]
    return files if case.geometry is None else [*files, str(case.geometry)]


def _earlier(out: Path, model: Record) -> dict[str, Record]:
    """Records that an earlier call with the same model and settings left."""
    file = out / RECORDS
    if not file.exists():
        return {}
    content = read_json(file)
    if not isinstance(content, dict):
        return {}
    if any(content.get(key) != value for key, value in model.items()):
        return {}
    return dict(content["cases"])


def _done(record: Record | None, case: Case, out: Path, names: Sequence[str]) -> bool:
    """Whether a case was predicted before, and all its files are there."""
    if record is None or "error" in record or record["inputs"] != _inputs(case):
        return False
    return all((out / name).exists() for name in names)
