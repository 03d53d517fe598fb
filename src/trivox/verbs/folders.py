"""What the verbs leave in their folders, so that nobody's own files are written over,
and none of a run's by another verb.
"""

from pathlib import Path

from trivox import outputs
from trivox.datasets.dataset import NOTE
from trivox.datasets.phantoms.ellipsoids import DRAWN
from trivox.errors import DataError, UsageError
from trivox.inference.bundle import PRETRAINED
from trivox.outputs import Contents, Kind, names_there, object_with, text_with
from trivox.preparation.exam_store import KEY

PREPARED = {
    "check.json": outputs.CHECK,
    "dataset.json": outputs.DATASET,
    "fingerprint.json": outputs.FINGERPRINT,
    "plan.json": outputs.PLAN,
    "splits.json": outputs.FOLDS,
    "sources.json": outputs.SOURCES,
}
TRAINED = {
    **PREPARED,
    "run.json": outputs.RUN,
    "recipe.json": outputs.RECIPE,
    "transfer.json": outputs.TRANSFER,
    "pretraining.json": outputs.PRETRAINING,
    "report.html": outputs.PAGE,
    "cost.json": outputs.COST,
}
VALIDATED = "validation/metrics.json"
RECORD = "demo.json"
SHOWN = ("run", "first", "predictions", "unseen-cases.txt")
MADE = (
    "prepared",
    "checkpoints",
    "validation",
    "bundle",
    "report-3d",
    "log.txt",
    "metrics.jsonl",
    "case-features.npz",
    "classifier.safetensors",
    PRETRAINED,
    "tensorboard",
    "wandb",
    "mlflow",
)


def require_result(out: Path, kind: Kind) -> None:
    """Raise unless a file of `kind` can be written to `out`, and is no part of a run,
    which goes by what its own training wrote.
    """
    outputs.require_file(out, kind)
    places = [out.absolute() / "..", out.absolute() / "../.."]
    for folder in (place.resolve() for place in places):
        run_files = [folder / name for name in (*TRAINED, VALIDATED)]
        if outputs.is_there(out) and out.resolve() in run_files and is_run(folder):
            raise DataError(f"{out}: belongs to the run {folder}; {outputs.ADVICE}")


def require_apart(first: Path, second: Path) -> None:
    """Raise `UsageError` if two results would be written to one file."""
    if first.resolve() == second.resolve():
        raise UsageError(f"{first}: two files would be written there; {outputs.ADVICE}")


def is_run(folder: Path) -> bool:
    """Whether a training began in a folder."""
    record = folder / "run.json"
    return record.is_file() and outputs.RUN.wrote(record)


def require_run(out: Path, source: Path) -> None:
    """Raise unless a run on `source` can be written to `out` without touching what is
    not a run's.
    """
    proofs = ("run.json", "recipe.json")
    others = (*MADE, *names_there(out, ["fold[0-9]*"]))
    contents = Contents("run", TRAINED, proofs, others)
    outputs.require_folder(out, contents, source=source)


def require_prepared(folder: Path) -> None:
    """Raise `DataError` unless a folder holds what a preparation leaves: cases that
    lack there are added, to nothing else.
    """
    if not (folder / "prepared" / KEY).is_file():
        raise DataError(
            f"{folder}: holds no prepared cases; run 'trivox preprocess DATASET --out "
            f"{folder}' first"
        )


def require_preparation(out: Path, source: Path) -> None:
    """Raise unless `source` can be prepared in `out`, likewise; a run prepares its own
    cases.
    """
    if is_run(out):
        raise DataError(
            f"{out}: is a run, which prepares its own cases; {outputs.ADVICE}"
        )
    contents = Contents("preparation", PREPARED, ("check.json",), ("prepared",))
    outputs.require_folder(out, contents, source=source)


def require_demo(out: Path, drawn: str, data: Path | str | None) -> None:
    """Raise unless a demo can be shown in `out`, likewise.

    drawn: folder of its phantoms; data: what it shows instead of them. trivox 0.1.0
    left no record: there the note of the phantoms, or the run, is the proof.
    """
    note = f"{drawn}/{NOTE}"
    kinds = {
        RECORD: Kind("demo", object_with("demo", "format_version")),
        "metrics.json": outputs.METRICS,
        "run/run.json": outputs.RUN,
    }
    if data is None:
        kinds[note] = Kind("note on phantoms", text_with(DRAWN.strip()))
        contents = Contents("demo", kinds, (RECORD, note), (drawn, *SHOWN))
        outputs.require_folder(out, contents)
        return
    contents = Contents("demo", kinds, (RECORD, "run/run.json"), SHOWN)
    outputs.require_folder(out, contents, source=Path(data))
