"""Predicting many cases: resumable, nothing skipped silently, a bad case set aside
while the others go on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from trivox.datasets.dataset import Case
from trivox.errors import few
from trivox.files import remove_leftovers
from trivox.inference.many.line import SHARE, Line, Passage
from trivox.inference.many.origins import input_names, is_from
from trivox.inference.many.predictors import CasePredictor, R
from trivox.inference.many.sharing import ended
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
from trivox.locks import alone, claimed
from trivox.memory import memory_ran_out
from trivox.schema import FORMAT_VERSION

VERB = "predict"


class Tables(NamedTuple):
    """What is written about all cases together, beside what the predictor writes: names
    of the files, and what writes them from the records.
    """

    names: Sequence[str]
    write: Callable[[Mapping[str, Record], Path], None]


NO_TABLES = Tables((), lambda records, out: None)
ShowCases = Callable[[Iterable[Case], int], Iterable[Case]]
"""Passes cases on, given how many there are."""


def predict_cases(
    predictor: CasePredictor[R],
    cases: Sequence[Case],
    out: Path,
    *,
    others: Sequence[CasePredictor[R]] = (),
    overwrite: bool = False,
    sole: bool = False,
    maps: bool = True,
    also: Callable[[Case, R], Mapping[str, Any]] = lambda case, result: {},
    also_endings: Sequence[str] = (),
    also_done: Callable[[Case, Record], bool] = lambda case, record: True,
    tables: Tables = NO_TABLES,
    progress: ShowCases = lambda cases, total: cases,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Record]:
    """Write what `predictor` gives for each case (`out/CASE.nii.gz` and what it was
    asked for beside it) and `out/predictions.json`; returns the records by case.

    others: the same model with the same options on other devices, which share the cases.
    maps: whether the maps themselves are written. also: called with each result, one at
    a time, for what else is to be written about it (as CASE and one of `also_endings`);
    what it returns joins the record; also_done: whether all of that was written before,
    by the record of then; tables: what else is written about all cases. A case done
    before by the same model with the same settings from the same files is kept. A case
    that fails has `error` in its record and no map; a full disk or missing memory while
    reading or writing ends the work, since every later case would fail as well.

    Raises `DataError` before the first case if a file would be written over that is an
    input, another case's, or not from a prediction, or if other cases lie there that
    another model predicted, unless `overwrite`, which removes them; `BusyError` while
    another process predicts one of the cases. sole: nobody else keeps files in `out`, so
    that what has the name of an output is replaced.
    """
    identity = {"format_version": FORMAT_VERSION, "model": predictor.identity}
    model = {**identity, **predictor.about()}
    files = predictor.files if maps else _no_files
    names_of_tables = (*predictor.tables(), *tables.names)
    outputs = _outputs(files, names_of_tables, cases, also_endings)
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

        def is_done(case: Case, record: Record) -> bool:
            return _done(record, out, files(case)) and also_done(case, record)

        with alone(out):
            done = _begin(is_done, cases, records, overwrite=overwrite, say=say)
        todo = [case for case in cases if case.name not in done]
        write = _writer(records, also, maps=maps)
        share = SHARE / (1 + len(others))
        written: list[Passage[R]] = []
        models = (predictor, *others)
        lines = [Line(each, write, share, written) for each in models]
        # a CPU has no time to spare for two cases
        abreast = predictor.device.type == "cuda"
        try:
            with closing(ended(lines, todo, abreast=abreast)) as passages:
                for _, passage in zip(progress(todo, len(todo)), passages, strict=True):
                    _note(passage, records, say)
        finally:
            _note_written(written, records, say)
        with alone(out):
            predictor.finish(records.all_cases(), out)
            tables.write(records.all_cases(), out)
    return {case.name: records.cases[case.name] for case in cases}


def _no_files(case: Case) -> Sequence[str]:
    return ()


def _outputs(
    files: Callable[[Case], Sequence[str]],
    tables: Sequence[str],
    cases: Sequence[Case],
    also_endings: Sequence[str],
) -> dict[str, Sequence[str]]:
    """Names of the files that may be written about each case, and about all."""
    outputs: dict[str, Sequence[str]] = {ALL_CASES: tables}
    for case in cases:
        more = (f"{case.name}{ending}" for ending in also_endings)
        outputs[case.name] = (*files(case), *more)
    return outputs


def _begin(
    is_done: Callable[[Case, Record], bool],
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
        records.cases = _finished(is_done, cases, out, there, say)
    asked = records.outputs
    records.owners = {n: case for n, case in records.owners.items() if case in asked}
    for name in asked:
        if name not in records.cases:
            records.claim(name)
    if records.cases:
        before = f"{len(records.cases)} of {len(cases)}"
        say(f"{before} cases were predicted before by this model and are kept")
    records.save_here()
    done_before = set(records.cases)
    todo = (case.name for case in cases if case.name not in done_before)
    records.order = [*records.cases, *todo]
    return done_before


def _writer(
    records: PredictionRecords,
    also: Callable[[Case, R], Mapping[str, Any]],
    *,
    maps: bool,
) -> Callable[[Case, R], Record]:
    """Writes the prediction of a case, and what else is to be written about it."""
    one_at_a_time = Lock()

    def write(case: Case, result: R) -> Record:
        # no map of an earlier prediction stands beside the new ones
        with records.lock:
            records.remove(case.name)
            records.claim(case.name)
        record = result.write(case, records.out) if maps else result.record()
        with one_at_a_time:
            record |= also(case, result)
        record |= written_files(records.out, records.outputs[case.name])
        return record

    return write


def _note(
    passage: Passage[R], records: PredictionRecords, say: Callable[[str], None]
) -> None:
    """Note what became of a case."""
    case = passage.case
    record = passage.record
    if record is None:
        reason = _reason(passage.error)
        records.remove(case.name)
        record = {"inputs": input_names(case), "error": reason}
        short = reason.removeprefix(f"{case.name}: ")
        say(f"{case.name}: set aside: {short}")
    record["seconds"] = round(passage.seconds, 3)
    records.note(case.name, record)
    records.save()


def _note_written(
    written: Sequence[Passage[R]],
    records: PredictionRecords,
    say: Callable[[str], None],
) -> None:
    """Note the cases that were written before the work ended early."""
    for passage in written:
        if passage.case.name not in records.cases:
            _note(passage, records, say)


def _reason(error: Exception | None) -> str:
    """Why a case is set aside."""
    if error is not None and memory_ran_out(error):
        return f"out of memory ({error}); use a smaller case or model, or more memory"
    return str(error)


def _finished(
    is_done: Callable[[Case, Record], bool],
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
        if record is None or not is_done(case, record):
            continue
        if is_from(record, case):
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
