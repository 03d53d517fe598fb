"""Predicting many cases: resumable, nothing skipped silently, a bad case set aside
while the others go on.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import ValidationError

from trivox.datasets.dataset import Case
from trivox.errors import FormatError, ResourceError, TrivoxError, few
from trivox.files import remove_leftovers
from trivox.inference.records import (
    ALL_CASES,
    PredictionRecords,
    altered_cases,
    is_of_another,
    owners_of,
    read_records,
    require_free,
    require_no_strangers,
    require_unaltered,
    written_files,
)
from trivox.inference.writing import Record
from trivox.learning.runtime import out_of_memory
from trivox.locks import alone, claimed
from trivox.schema import FORMAT_VERSION
from trivox.sources import Source, is_unchanged, source_of
from trivox.volumes.choice import NO_CHOICE

VERB = "predict"


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
    input, another case's, or not from a prediction, or if other cases lie there that
    another model predicted, unless `overwrite`, which removes them; `BusyError` while
    another process predicts one of the cases. sole: nobody else keeps files in `out`, so
    that what has the name of an output is replaced.
    """
    identity = {"format_version": FORMAT_VERSION, "model": predictor.identity}
    model = {**identity, **predictor.about()}
    outputs = _outputs(predictor, cases, also_endings)
    there = read_records(out)
    replaced = is_of_another(there, model)
    if not sole:
        owners = owners_of(there, out)
        require_free(out, cases, outputs, owners, replaced=replaced)
    if replaced and not (sole or overwrite):
        require_no_strangers(there, out, outputs)
        require_unaltered(out, altered_cases(there, out))
    names = None if replaced else [case.name for case in cases]
    with claimed(out, VERB, names, say=say):
        records = PredictionRecords(out, model, outputs)
        with alone(out):
            done = _begin(predictor, cases, records, overwrite=overwrite, say=say)
        todo = [case for case in cases if case.name not in done]
        for case in progress(todo, len(todo)):
            record = _predict_one(predictor, case, records, also)
            records.cases[case.name] = record
            if "error" in record:
                reason = record["error"].removeprefix(f"{case.name}: ")
                say(f"{case.name}: set aside: {reason}")
            records.save()
        with alone(out):
            predictor.finish(records.all_cases(), out)
    return {case.name: records.cases[case.name] for case in cases}


def _outputs(
    predictor: CasePredictor[R], cases: Sequence[Case], also_endings: Sequence[str]
) -> dict[str, Sequence[str]]:
    """Names of the files that may be written about each case, and about all."""
    outputs: dict[str, Sequence[str]] = {ALL_CASES: predictor.tables()}
    for case in cases:
        more = (f"{case.name}{ending}" for ending in also_endings)
        outputs[case.name] = (*predictor.files(case), *more)
    return outputs


def _begin(
    predictor: CasePredictor[R],
    cases: Sequence[Case],
    records: PredictionRecords,
    *,
    overwrite: bool,
    say: Callable[[str], None],
) -> set[str]:
    """Say in the records what will be written; returns the names of the cases that are
    there already.
    """
    out = records.out
    remove_leftovers(out)
    there = read_records(out)
    records.owners = owners_of(there, out)
    if is_of_another(there, records.model):
        # a model's name never stands beside another model's maps
        earlier = sorted(set(records.owners.values()) - {ALL_CASES})
        if earlier:
            say(
                f"{len(earlier)} cases were predicted before by another model or with "
                f"other settings and are removed: {few(earlier)}"
            )
        for name in {*records.owners.values()}:
            records.remove(name)
    elif not overwrite:
        records.cases = _finished(predictor, cases, out, there, say)
    asked = records.outputs
    records.owners = {n: case for n, case in records.owners.items() if case in asked}
    for name in asked:
        if name not in records.cases:
            records.claim(name)
    if records.cases:
        before = f"{len(records.cases)} of {len(cases)}"
        say(f"{before} cases were predicted before by this model and are kept")
    records.save_here()
    return set(records.cases)


def _predict_one(
    predictor: CasePredictor[R],
    case: Case,
    records: PredictionRecords,
    also: Callable[[Case, R], Mapping[str, Any]],
) -> Record:
    started = time.monotonic()
    record = _origin(case)  # before it is read: a later change is noticed
    try:
        result = predictor.predict_case(case)
        # no map of an earlier prediction stands beside the new ones
        records.remove(case.name)
        records.claim(case.name)
        record |= result.write(case, records.out)
        record |= also(case, result)
        record |= written_files(records.out, records.outputs[case.name])
    except ResourceError:
        raise
    except (TrivoxError, ValueError, MemoryError, RuntimeError) as error:
        reason = _reason(error)
        records.remove(case.name)
        record = {"inputs": _input_names(case), "error": reason}
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


def _inputs(case: Case) -> list[Path]:
    """The files that a prediction is made from."""
    return [*case.images] if case.geometry is None else [*case.images, case.geometry]


def _input_names(case: Case) -> list[str]:
    return [str(path) for path in _inputs(case)]


def _origin(case: Case) -> Record:
    """The part of a record that says what a prediction is made from; nothing of files
    that cannot be read, which whoever reads the case will name.
    """
    names: Record = {"inputs": _input_names(case)}
    if case.choice != NO_CHOICE:
        names["choice"] = case.choice.model_dump()
    try:
        sources = [source_of(path) for path in _inputs(case)]
    except FormatError:
        return names
    return names | {"sources": [source.model_dump() for source in sources]}


def _finished(
    predictor: CasePredictor[R],
    cases: Sequence[Case],
    out: Path,
    there: Mapping[str, Any],
    say: Callable[[str], None],
) -> dict[str, Record]:
    """Records of the cases that need not be predicted again; raises `DataError` where
    one has to be and somebody changed its map.
    """
    earlier = there.get("cases", {})
    finished: dict[str, Record] = {}
    changed = []
    for case in cases:
        record = earlier.get(case.name)
        if record is None or not _done(record, out, predictor.files(case)):
            continue
        if _is_from(record, case):
            finished[case.name] = record
        else:
            changed.append(case.name)
    altered = altered_cases(there, out)
    again = {case.name for case in cases} - finished.keys()
    require_unaltered(out, sorted({*altered} & again))
    _say_kept(sorted({*altered} & {*finished}), say)
    if changed:
        one = "input changed since it was predicted and is"
        many = "inputs changed since they were predicted and are"
        say(
            f"{len(changed)} {one if len(changed) == 1 else many} predicted again: "
            f"{few(changed)}"
        )
    return finished


def _say_kept(altered: Sequence[str], say: Callable[[str], None]) -> None:
    """Say which maps are not what the model gave."""
    if altered:
        one = "prediction was changed by hand since and is"
        many = "predictions were changed by hand since and are"
        say(
            f"{len(altered)} {one if len(altered) == 1 else many} kept as such "
            f"(--overwrite predicts again): {few(altered)}"
        )


def _done(record: Record, out: Path, names: Sequence[str]) -> bool:
    """Whether a case was predicted before, and all its files are there."""
    return "error" not in record and all((out / name).exists() for name in names)


def _is_from(record: Record, case: Case) -> bool:
    """Whether the inputs are what they were, and read as they were; 0.1.0 did not write
    that down.
    """
    if record.get("inputs") != _input_names(case):
        return False
    if record.get("choice", NO_CHOICE.model_dump()) != case.choice.model_dump():
        return False
    sources = record.get("sources")
    if sources is None:
        return True
    try:
        recorded = [Source.model_validate(source) for source in sources]
    except (TypeError, ValidationError):
        return False
    pairs = zip(_inputs(case), recorded, strict=False)
    same = all(is_unchanged(path, source) for path, source in pairs)
    return same and len(recorded) == len(_inputs(case))
