"""Predicting many cases: resumable, nothing skipped silently, a bad case set aside
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
from trivox.inference.classes.files import (
    ClassAnswer,
    write_classes,
    write_subtype_results,
)
from trivox.inference.doubt.kinds import EXTRAS, KINDS
from trivox.inference.doubt.uncertainty import require_kinds
from trivox.inference.predictor import Prediction, Predictor
from trivox.volumes.formats import write_volume
from trivox.volumes.volume import Volume

Record = dict[str, Any]


def _label_cases(
    predictor: Predictor,
    cases: Sequence[Case],
    out: Path,
    *,
    probabilities: bool = False,
    uncertainty: Sequence[str] = (),
    overwrite: bool = False,
    numbered_classes: bool = False,
    progress: Callable[[Iterable[Case], int], Iterable[Case]] = lambda cases, total: (
        cases
    ),
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Record]:
    """Write `out/CASE.nii.gz` for each case and `out/predictions.json`; returns the
    records by case.

    Probabilities and kinds of uncertainty asked for stand beside it as
    `CASE_<what>.nii.gz`; those of an earlier prediction that were not asked for again
    are removed with it. A model that gives classes leaves `out/classes.csv`, and with
    `numbered_classes` also `out/subtype_results.csv` (columns Names,Subtype). Raises
    `RecipeError` for kinds that the predictor cannot give. A case done before by the
    same model with the same settings from the same files is kept. A case that fails has
    `error` in its record and no label map; a full disk or missing memory while reading
    or writing ends the work, since every later case would fail as well.
    """
    require_kinds(uncertainty, votes=predictor.votes)
    extras = (
        *(("probabilities",) if probabilities else ()),
        *dict.fromkeys(uncertainty),
    )
    out.mkdir(parents=True, exist_ok=True)
    for leftover in out.glob(".tmp-*"):
        leftover.unlink(missing_ok=True)
    about = {"model": predictor.identity, "settings": predictor.settings}
    records = {} if overwrite else _earlier(out, about)
    todo = [
        case for case in cases if not _done(records.get(case.name), case, out, extras)
    ]
    if len(todo) < len(cases):
        say(
            f"{len(cases) - len(todo)} of {len(cases)} cases were predicted before by this model and are kept"
        )
    # before the first case: a model's name never stands beside another model's label
    # maps
    write_json(out / "predictions.json", {**about, "cases": records})
    for case in progress(todo, len(todo)):
        records[case.name] = _predict_one(predictor, case, out, extras)
        if "error" in records[case.name]:
            say(f"{case.name}: set aside: {records[case.name]['error']}")
        write_json(out / "predictions.json", {**about, "cases": records})
    found = {case.name: records[case.name] for case in cases}
    if predictor.classes:
        _write_classes(out, found, predictor.classes, numbered=numbered_classes)
    return found


def _write_classes(
    out: Path, records: Mapping[str, Record], classes: Sequence[str], *, numbered: bool
) -> None:
    """The classes of the cases that did not fail, as tables."""
    rows = [
        ClassAnswer(
            name, record["class"]["probabilities"], tuple(record["class"]["flags"])
        )
        for name, record in records.items()
        if "error" not in record
    ]
    write_classes(out / "classes.csv", rows, classes=classes)
    if numbered:
        write_subtype_results(
            out / "subtype_results.csv", rows, classes=classes, ending=".nii.gz"
        )


def _predict_one(
    predictor: Predictor, case: Case, out: Path, extras: Sequence[str]
) -> Record:
    started = time.monotonic()
    record: Record = {"inputs": [str(path) for path in case.images]}
    try:
        prediction = predictor.predict_case(
            case,
            probabilities="probabilities" in extras,
            uncertainty=[extra for extra in extras if extra in KINDS],
        )
        _remove(case, out)  # no map of an earlier prediction beside this one's labels
        output = out / f"{case.name}.nii.gz"
        for extra, volume in _extras_of(prediction).items():
            write_volume(_beside(out, case, extra), volume)
        write_volume(output, prediction.labels)
        record |= {
            "output": output.name,
            "warnings": list(prediction.warnings),
            **prediction.trust,
        }
        if prediction.classification is not None:
            found = prediction.classification
            record["class"] = {
                "answer": found.answer,
                "probabilities": dict(found.probabilities),
                "flags": list(found.flags),
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
        ):  # a bug, not this case's fault
            raise
        _remove(case, out)
        record["error"] = (
            f"out of memory ({error}); use a smaller case or more memory"
            if memory
            else str(error)
        )
    record["seconds"] = round(time.monotonic() - started, 3)
    return record


def _extras_of(prediction: Prediction) -> dict[str, Volume]:
    chance = (
        {}
        if prediction.probabilities is None
        else {"probabilities": prediction.probabilities}
    )
    return {**chance, **prediction.uncertainty}


def _beside(out: Path, case: Case, extra: str) -> Path:
    return out / f"{case.name}_{extra}.nii.gz"


def _remove(case: Case, out: Path) -> None:
    for path in (
        out / f"{case.name}.nii.gz",
        *(_beside(out, case, extra) for extra in EXTRAS),
    ):
        path.unlink(missing_ok=True)


def _earlier(out: Path, about: Record) -> dict[str, Record]:
    """Records that an earlier call with the same model and settings left."""
    file = out / "predictions.json"
    if not file.exists():
        return {}
    content = read_json(file)
    same = isinstance(content, dict) and all(
        content.get(key) == value for key, value in about.items()
    )
    return dict(content["cases"]) if same else {}


def _done(record: Record | None, case: Case, out: Path, extras: Sequence[str]) -> bool:
    if (
        record is None
        or "error" in record
        or record["inputs"] != [str(path) for path in case.images]
    ):
        return False
    return all(
        path.exists()
        for path in (
            out / record["output"],
            *(_beside(out, case, extra) for extra in extras),
        )
    )


# SHIM until the inference branch is merged
from typing import Protocol, TypeVar  # noqa: E402

RECORDS = "predictions.json"
R = TypeVar("R", covariant=True)


class CasePredictor(Protocol[R]):
    """A model made ready."""


def predict_cases(predictor, cases, out, *, overwrite=False, also=None, **options):  # type: ignore
    from trivox.inference.exam_folder import reconstruct_cases
    from trivox.inference.reconstructor import Reconstructor

    if isinstance(predictor, Reconstructor):
        return reconstruct_cases(
            predictor, cases, out, overwrite=overwrite, beside=also, **options
        )
    extra = getattr(predictor, "_outputs", None) or {}
    return _label_cases(
        predictor, cases, out, overwrite=overwrite, **{**extra, **options}
    )
