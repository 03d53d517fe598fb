"""Predicting many cases: resumable, nothing skipped silently, a bad case set aside while the others go on."""

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from trivox.datasets.dataset import Case
from trivox.errors import ResourceError, TrivoxError
from trivox.files import read_json, write_json
from trivox.inference.predictor import Predictor
from trivox.volumes import write_volume

Record = dict[str, Any]


def predict_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    out: Path,
    *,
    probabilities: bool = False,
    overwrite: bool = False,
    progress: Callable[[Iterable[Case], int], Iterable[Case]] = lambda cases, total: cases,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Record]:
    """Write `out/CASE.nii.gz` for each case and `out/predictions.json`; returns the records by case.

    A case done before by the same model with the same settings from the same files is kept. A case that fails has
    `error` in its record and no label map; a full disk or missing memory while reading or writing ends the work, since
    every later case would fail as well.
    """
    out.mkdir(parents=True, exist_ok=True)
    for leftover in out.glob(".tmp-*"):
        leftover.unlink(missing_ok=True)
    about = {"model": predictor.identity, "settings": predictor.settings}
    records = {} if overwrite else _earlier(out, about)
    todo = [case for case in cases if not _done(records.get(case.name), case, out, probabilities)]
    if len(todo) < len(cases):
        say(f"{len(cases) - len(todo)} of {len(cases)} cases were predicted before by this model and are kept")
    # before the first case: a model's name never stands beside another model's label maps
    write_json(out / "predictions.json", {**about, "cases": records})
    for case in progress(todo, len(todo)):
        records[case.name] = _predict_one(predictor, case, out, probabilities)
        if "error" in records[case.name]:
            say(f"{case.name}: set aside: {records[case.name]['error']}")
        write_json(out / "predictions.json", {**about, "cases": records})
    return {case.name: records[case.name] for case in cases}


def _predict_one(predictor: Predictor, case: Case, out: Path, probabilities: bool) -> Record:
    started = time.monotonic()
    record: Record = {"inputs": [str(path) for path in case.images]}
    try:
        prediction = predictor.predict_case(case, probabilities=probabilities)
        output = out / f"{case.name}.nii.gz"
        write_volume(output, prediction.labels)
        if prediction.probabilities is not None:
            write_volume(out / f"{case.name}_probabilities.nii.gz", prediction.probabilities)
        record |= {"output": output.name, "warnings": list(prediction.warnings)}
    except ResourceError:
        raise
    except (TrivoxError, ValueError, MemoryError, RuntimeError) as error:
        memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "alloc" in str(error).lower()
        if isinstance(error, RuntimeError) and not memory:  # a bug, not this case's fault
            raise
        (out / f"{case.name}.nii.gz").unlink(missing_ok=True)
        record["error"] = f"out of memory ({error}); use a smaller case or more memory" if memory else str(error)
    record["seconds"] = round(time.monotonic() - started, 3)
    return record


def _earlier(out: Path, about: Record) -> dict[str, Record]:
    """Records that an earlier call with the same model and settings left."""
    file = out / "predictions.json"
    if not file.exists():
        return {}
    content = read_json(file)
    same = isinstance(content, dict) and all(content.get(key) == value for key, value in about.items())
    return dict(content["cases"]) if same else {}


def _done(record: Record | None, case: Case, out: Path, probabilities: bool) -> bool:
    if record is None or "error" in record or record["inputs"] != [str(path) for path in case.images]:
        return False
    wanted = [record["output"]] + ([f"{case.name}_probabilities.nii.gz"] if probabilities else [])
    return all((out / name).exists() for name in wanted)
