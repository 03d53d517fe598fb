"""Whether what a run or a metrics.json says follows from the files that it is of.

Every number is measured again; predictions of the run are made again with its weights;
files, weights and folds are compared with what was recorded of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trivox.config.choices import ConventionName
from trivox.config.recipe import read_recipe
from trivox.datasets.dataset import Dataset
from trivox.datasets.layouts.choice import read_saved_dataset
from trivox.datasets.splits import Split, dataset_splits, read_folds, trained_splits
from trivox.errors import DataError, TrivoxError, few
from trivox.evaluation.conventions.choice import CONVENTIONS
from trivox.evaluation.folders.agreement import (
    differences,
    names_methods,
    numbers_in,
    without_intervals,
)
from trivox.evaluation.folders.labels import read_metrics, whole_in
from trivox.evaluation.metrics.content import MetricsFile
from trivox.files import read_json
from trivox.inference.bundle import read_any_bundle
from trivox.inference.folder import predict_cases
from trivox.scratch import scratch_folder
from trivox.sources import source_of
from trivox.tasks.console import Console
from trivox.tasks.options import EvaluateOptions, PredictOptions
from trivox.tasks.origin import differences as changes_since
from trivox.tasks.origin import read_origin
from trivox.tasks.stages import FOLDS, read_run
from trivox.tasks.task import ModelTask
from trivox.volumes.formats import read_volume

AnyTask = ModelTask[Any, Any]
ALIKE = 0.02
"""Part of all values by which a prediction that is made again may differ: bf16 on
another machine changes some voxels at borders.
"""
MEASURED = ("cases", "summary")


@dataclass
class Verification:
    """What was compared.

    numbers: measured again; disagreements, unchecked: a line each; cases: predicted
    again.
    """

    source: Path
    numbers: int = 0
    cases: int = 0
    disagreements: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        """What is said of it."""
        done = f"{self.numbers} numbers measured again"
        if self.cases:
            done += f", {self.cases} cases predicted again"
        result = "all agree" if not self.disagreements else "they do not agree"
        notes = [f"not checked: {line}" for line in self.unchecked]
        wrong = [f"does not agree: {line}" for line in self.disagreements]
        return [*wrong, *notes, f"{self.source}: {done}: {result}"]


def verify_run(run: Path, task: AnyTask, console: Console) -> Verification:
    """Compare everything that a finished run says with its files; see the module."""
    verification = Verification(run)
    wrong = verification.disagreements
    dataset = read_saved_dataset(run / "dataset.json")
    metrics = _metrics(run / "validation" / "metrics.json", verification, moved=True)
    wrong += _changed_data(run, dataset)
    wrong += _wrong_weights(run)
    splits = _splits(run, wrong)
    wrong += _wrong_folds(dataset, splits)
    if metrics is None:
        return verification
    wrong += _cases_trained_on(metrics, _folds_trained(run, splits))
    if task.measured_before:
        verification.unchecked.append(
            f"the figures: they were measured {task.measured_before}, before the files "
            "were written"
        )
    else:
        references = run / "dataset.json"
        predictions = run / "validation" / "predictions"
        _measure_again(metrics, task, predictions, references, verification)
    if not any("weights" in line for line in wrong):
        _predict_again(run, task, dataset, metrics, verification, console)
    return verification


def verify_metrics(file: Path, task: AnyTask) -> Verification:
    """Compare what a metrics.json says with the files that were measured."""
    verification = Verification(file)
    metrics = _metrics(file, verification)
    if metrics is None:
        return verification
    sources = metrics.get("sources") or {}
    if not sources:
        verification.unchecked.append("it does not say which files were measured")
        return verification
    first = next(iter(sources.values()))
    predictions = Path(first["prediction"]["file"]).parent
    reference = Path(first["reference"]["file"]) if "reference" in first else None
    if reference is None:
        verification.unchecked.append("it does not say what it was measured against")
        return verification
    trials = []
    for references in (reference.parent, reference.parent.parent):
        trial = Verification(file)
        _measure_again(metrics, task, predictions, references, trial)
        trials.append(trial)
        if not trial.disagreements:
            break
    # one that could be measured says more than one that could not
    tried = min(trials, key=lambda trial: (not trial.numbers, len(trial.disagreements)))
    verification.numbers += tried.numbers
    verification.disagreements += tried.disagreements
    verification.unchecked += tried.unchecked
    return verification


def _metrics(
    file: Path, verification: Verification, *, moved: bool = False
) -> MetricsFile | None:
    """What the file says; what is wrong with it, or with the files that it is of, joins
    the disagreements.

    moved: its predictions lie beside it, wherever they lay when they were measured.
    """
    try:
        metrics = read_metrics(file)
    except TrivoxError as error:
        verification.disagreements.append(str(error))
        return None
    folder = file.parent / "predictions" if moved else None
    verification.disagreements += _changed_files(metrics, folder)
    return metrics


def _changed_files(metrics: MetricsFile, folder: Path | None) -> Iterator[str]:
    """Files that are not what was measured, by their content."""
    for case, files in (metrics.get("sources") or {}).items():
        for what, recorded in files.items():
            file = Path(recorded["file"])
            if what == "prediction" and folder is not None:
                file = folder / file.name
            if not file.exists():
                yield f"{case}: its {what} is gone"
            elif source_of(file).sha256 != recorded["sha256"]:
                yield f"{case}: its {what} is not the file that was measured"


def _changed_data(run: Path, dataset: Dataset) -> list[str]:
    recorded = read_origin(run)
    if recorded is None:
        return []
    return [f"the data changed: {line}" for line in changes_since(dataset, recorded)]


def _wrong_weights(run: Path) -> Iterator[str]:
    try:
        read_any_bundle(run).weight_files()
    except TrivoxError as error:
        yield f"weights: {error}"


def _splits(run: Path, wrong: list[str]) -> list[Split]:
    try:
        return read_folds(run)
    except DataError as error:
        wrong.append(str(error))
        return []


def _wrong_folds(dataset: Dataset, splits: Sequence[Split]) -> Iterator[str]:
    """Folds with a case or a patient on both sides, or other ones than the data give."""
    patient_of = {case.name: case.patient for case in dataset.cases}
    for number, split in enumerate(splits):
        both = sorted({*split.train} & {*split.validation})
        if both:
            yield f"fold {number}: {few(both)} on both sides"
        train = {patient_of.get(name, name) for name in split.train}
        validation = {patient_of.get(name, name) for name in split.validation}
        shared = train & validation
        if shared and not both:
            yield f"fold {number}: {len(shared)} patients on both sides"
    if list(dataset_splits(dataset, folds=FOLDS)) != list(splits):
        yield "splits.json holds other folds than the data give"


def _folds_trained(run: Path, splits: Sequence[Split]) -> list[Split]:
    """Those whose weights the bundle holds."""
    fold = read_run(run).fold
    return trained_splits(run, [fold]) if splits and fold != "all" else list(splits)


def _cases_trained_on(metrics: MetricsFile, splits: Sequence[Split]) -> Iterator[str]:
    held_out = {name for split in splits for name in split.validation}
    others = sorted(set(metrics["cases"]) - held_out)
    if splits and others:
        yield f"measured on cases that no fold held out: {few(others)}"


def _measure_again(
    metrics: MetricsFile,
    task: AnyTask,
    predictions: Path,
    references: Path,
    verification: Verification,
) -> None:
    """Every number of cases and of the summary, from the files."""
    try:
        again = task.evaluate(predictions, references, _options_of(metrics))
    except TrivoxError as error:
        verification.disagreements.append(f"cannot be measured again: {error}")
        return
    for part in MEASURED:
        says: Any = metrics[part]  # type: ignore[literal-required]
        is_so: Any = again[part]  # type: ignore[literal-required]
        if part == "summary" and not names_methods(says):
            says = without_intervals(says)
            is_so = without_intervals(is_so)
            verification.unchecked.append(
                "intervals of the summary: the file is of a version that found them in "
                "another way"
            )
        verification.numbers += numbers_in(says)
        verification.disagreements += differences(says, is_so, part)
    if "detection" in metrics:
        section: Any = metrics["detection"]
        verification.numbers += numbers_in(section)
        verification.disagreements += differences(
            section, again.get("detection"), "detection"
        )
    if "raters" in metrics:
        verification.unchecked.append("agreement of raters is not measured again")
    if "classification" in metrics:
        verification.unchecked.append("scores of classes are not computed again")


def _options_of(metrics: MetricsFile) -> EvaluateOptions:
    """How a file was measured, by its own words."""
    block = metrics["convention"]
    name = str(block.get("name", ""))
    if name not in CONVENTIONS:
        window = block.get("window_hu")
        return EvaluateOptions(settings={} if window is None else {"window": window})
    fields = CONVENTIONS[name].model_fields
    settings = {key: block[key] for key in fields if key in block}
    convention: ConventionName = name  # type: ignore[assignment]
    return EvaluateOptions(
        convention=convention, settings=settings, whole=whole_in(block)
    )


def _predict_again(
    run: Path,
    task: AnyTask,
    dataset: Dataset,
    metrics: MetricsFile,
    verification: Verification,
    console: Console,
) -> None:
    """One case with the weights of the run: other weights give another map."""
    bundle = read_any_bundle(run)
    if len(bundle.weight_files()) > 1:
        verification.unchecked.append(
            "predictions of several folds are not made again, each case is of one"
        )
        return
    name = next(iter(metrics["cases"]))
    cases = [case for case in dataset.cases if case.name == name]
    options = PredictOptions(device="cpu", precision=_precision(run))
    predictor = task.predictor([run], options)
    with scratch_folder() as folder:
        console.say(f"predicting {name} again")
        records = predict_cases(predictor, cases, folder, sole=True)
        written = folder / f"{name}.nii.gz"
        stored = run / "validation" / "predictions" / written.name
        if "error" in records[name] or not _alike(written, stored):
            verification.disagreements.append(
                f"{name}: the weights of the run give another prediction than the one "
                "that was measured"
            )
        verification.cases += 1


def _precision(run: Path) -> str:
    """What the run computed in, as far as a CPU does."""
    precision = read_recipe(read_json(run / "recipe.json")).precision
    return precision if precision in ("fp32", "bf16") else "auto"


def _alike(first: Path, second: Path) -> bool:
    """Whether two maps or volumes are the same but for rounding."""
    one = read_volume(first).array
    other = read_volume(second).array
    if one.shape != other.shape:
        return False
    if one.dtype.kind in "iu" and other.dtype.kind in "iu":
        changed = int((one != other).sum())
        labelled = int((other != 0).sum())
        return changed <= ALIKE * max(labelled, 1)
    apart = np.abs(one.astype(np.float64) - other).sum()
    return bool(apart <= ALIKE * np.abs(other.astype(np.float64)).sum())
