"""Reconstructing many exams: resumable, nothing skipped silently, a bad exam set aside
while the others go on.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from trivox.datasets.dataset import Case
from trivox.errors import ResourceError, TrivoxError
from trivox.files import read_json, write_json
from trivox.inference.reconstructor import SYNTHETIC, Reconstruction, Reconstructor
from trivox.volumes.formats import write_volume

Record = dict[str, Any]


def reconstruct_cases(
    reconstructor: Reconstructor,
    cases: Sequence[Case],
    out: Path,
    *,
    overwrite: bool = False,
    beside: Callable[
        [Case, Reconstruction], Mapping[str, Any]
    ] = lambda case, found: {},
    progress: Callable[[Iterable[Case], int], Iterable[Case]] = lambda cases, total: (
        cases
    ),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Record]:
    """Write `out/CASE.nii.gz` in HU for each exam and `out/predictions.json`; returns
    the records by case.

    beside: called with each result, for what else is to be written; what it returns
    joins the record. An exam done before by the same model from the same files is kept.
    One that fails has `error` in its record and no volume; a full disk ends the work.
    """
    out.mkdir(parents=True, exist_ok=True)
    for leftover in out.glob(".tmp-*"):
        leftover.unlink(missing_ok=True)
    about = {
        "model": reconstructor.identity,
        "task": "reconstruction",
        "notice": SYNTHETIC,
    }
    records = {} if overwrite else _earlier(out, about)
    todo = [case for case in cases if not _done(records.get(case.name), case, out)]
    if len(todo) < len(cases):
        say(
            f"{len(cases) - len(todo)} of {len(cases)} cases were reconstructed before by this model and are kept"
        )
    write_json(out / "predictions.json", {**about, "cases": records})
    for case in progress(todo, len(todo)):
        records[case.name] = _one(reconstructor, case, out, beside)
        if "error" in records[case.name]:
            say(f"{case.name}: set aside: {records[case.name]['error']}")
        write_json(out / "predictions.json", {**about, "cases": records})
    return {case.name: records[case.name] for case in cases}


def _inputs(case: Case) -> list[str]:
    return [str(path) for path in (*case.images, case.geometry)]


def _one(
    reconstructor: Reconstructor,
    case: Case,
    out: Path,
    beside: Callable[[Case, Reconstruction], Mapping[str, Any]],
) -> Record:
    started = time.monotonic()
    record: Record = {"inputs": _inputs(case)}
    output = out / f"{case.name}.nii.gz"
    try:
        found = reconstructor.predict_case(case)
        write_volume(output, found.volume)
        record |= {
            "output": output.name,
            "views": found.views,
            "warnings": list(found.warnings),
            **beside(case, found),
        }
    except ResourceError:
        raise
    except (TrivoxError, ValueError, MemoryError, RuntimeError) as error:
        memory = (
            isinstance(error, MemoryError | torch.OutOfMemoryError)
            or "alloc" in str(error).lower()
        )
        if (
            isinstance(error, RuntimeError) and not memory
        ):  # a bug, not this exam's fault
            raise
        output.unlink(missing_ok=True)
        record["error"] = (
            f"out of memory ({error}); use a smaller model or more memory"
            if memory
            else str(error)
        )
    record["seconds"] = round(time.monotonic() - started, 3)
    return record


def _earlier(out: Path, about: Record) -> dict[str, Record]:
    """Records that an earlier call with the same model left."""
    file = out / "predictions.json"
    content = read_json(file) if file.exists() else None
    if not isinstance(content, dict) or any(
        content.get(key) != value for key, value in about.items()
    ):
        return {}
    return dict(content["cases"])


def _done(record: Record | None, case: Case, out: Path) -> bool:
    if record is None or "error" in record or record["inputs"] != _inputs(case):
        return False
    return bool((out / record["output"]).exists())
