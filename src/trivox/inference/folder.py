"""Predicting many cases: resumable, nothing skipped silently, a bad case set aside
while the others go on.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from trivox.datasets.dataset import Case
from trivox.errors import ResourceError, TrivoxError
from trivox.files import remove_leftovers
from trivox.inference.records import (
    ALL_CASES,
    PredictionRecords,
    is_of,
    owners_of,
    read_records,
    require_free,
)
from trivox.inference.writing import Record
from trivox.learning.runtime import out_of_memory


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

    def tables(self) -> Sequence[str]:
        """Names of the files that are written about all cases together."""

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
    sole: bool = False,
    also: Callable[[Case, R], Mapping[str, Any]] = lambda case, result: {},
    also_endings: Sequence[str] = (),
    progress: ShowCases = lambda cases, total: cases,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Record]:
    """Write what `predictor` gives for each case (`out/CASE.nii.gz` and what it was
    asked for beside it) and `out/predictions.json`; returns the records by case.

    also: called with each result, for what else is to be written about it (as CASE and
    one of `also_endings`); what it returns joins the record. A case done before by the
    same model with the same settings from the same files is kept. A case that fails has
    `error` in its record and no map; a full disk or missing memory while reading or
    writing ends the work, since every later case would fail as well.

    Raises `DataError` before the first case if a file would be written over that is an
    input, another case's, or not from a prediction; sole: nobody else keeps files in
    `out`, so that what has the name of an output is replaced.
    """
    model = {"model": predictor.identity, **predictor.about()}
    outputs: dict[str, Sequence[str]] = {ALL_CASES: predictor.tables()}
    for case in cases:
        more = (f"{case.name}{ending}" for ending in also_endings)
        outputs[case.name] = (*predictor.files(case), *more)
    there = read_records(out)
    owners = owners_of(there, out)
    if not sole:
        require_free(out, cases, outputs, owners)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    records = PredictionRecords(out, model, outputs)
    records.owners = {name: case for name, case in owners.items() if case in outputs}
    if is_of(there, model) and not overwrite:
        records.cases = _finished(predictor, cases, out, there["cases"])
    todo = [case for case in cases if case.name not in records.cases]
    for name in (ALL_CASES, *(case.name for case in todo)):
        records.claim(name)
    if len(todo) < len(cases):
        before = f"{len(cases) - len(todo)} of {len(cases)}"
        say(f"{before} cases were predicted before by this model and are kept")
    # before the first case: a model's name never stands beside another model's maps
    records.save()
    for case in progress(todo, len(todo)):
        record = _predict_one(predictor, case, records, also)
        records.cases[case.name] = record
        if "error" in record:
            reason = record["error"].removeprefix(f"{case.name}: ")
            say(f"{case.name}: set aside: {reason}")
        records.save()
    predictor.finish(records.cases, out)
    return {case.name: records.cases[case.name] for case in cases}


def _predict_one(
    predictor: CasePredictor[R],
    case: Case,
    records: PredictionRecords,
    also: Callable[[Case, R], Mapping[str, Any]],
) -> Record:
    started = time.monotonic()
    record: Record = {"inputs": _inputs(case)}
    try:
        result = predictor.predict_case(case)
        # no map of an earlier prediction stands beside the new ones
        records.remove(case.name)
        records.claim(case.name)
        record |= result.write(case, records.out)
        record |= also(case, result)
    except ResourceError:
        raise
    except (TrivoxError, ValueError, MemoryError, RuntimeError) as error:
        reason = _reason(error)
        records.remove(case.name)
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


def _finished(
    predictor: CasePredictor[R],
    cases: Iterable[Case],
    out: Path,
    earlier: Mapping[str, Record],
) -> dict[str, Record]:
    """Records of the cases that need not be predicted again."""
    finished = {}
    for case in cases:
        record = earlier.get(case.name)
        files = predictor.files(case)
        if record is not None and _done(record, case, out, files):
            finished[case.name] = record
    return finished


def _done(record: Record, case: Case, out: Path, names: Sequence[str]) -> bool:
    """Whether a case was predicted before, and all its files are there."""
    if "error" in record or record.get("inputs") != _inputs(case):
        return False
    return all((out / name).exists() for name in names)
