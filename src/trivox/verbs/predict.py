"""From a model and images to label maps or volumes: `trivox.predict`."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from trivox.config.choices import (
    EngineChoice,
    MissedKind,
    MissingChannels,
    PrecisionName,
    SegType,
    UncertaintyKind,
)
from trivox.datasets.dataset import Case
from trivox.errors import DataError, FormatError, UsageError, few
from trivox.inference.bundle import bundle_content, model_paths
from trivox.inference.folder import predict_cases
from trivox.inference.many.devices import devices_of, require_same
from trivox.inference.many.predictors import CasePredictor
from trivox.inference.many.ready import ready_predictor
from trivox.inference.records import RECORDS
from trivox.inference.writing import Record
from trivox.outputs import require_folder_place
from trivox.results.codes import FILE as CODES_FILE
from trivox.results.codes import Codes, read_codes
from trivox.results.formats import ResultFiles, result_files
from trivox.results.options import ResultOptions
from trivox.tasks.choice import task_of
from trivox.tasks.console import Console, Quiet
from trivox.tasks.options import PredictOptions
from trivox.tasks.task import ModelTask
from trivox.verbs.settings import series_choice
from trivox.verbs.texts import described

FEWEST_TO_ORDER = 4
DOUBTFUL = 3
"""Cases that are named."""
ONE_A_LINE = "give a text file with one case name a line"


@dataclass(frozen=True)
class PredictedCase:
    """What became of a case: its record, and the folder of its files."""

    name: str
    folder: Path
    record: Mapping[str, Any] = field(repr=False)

    @property
    def is_done(self) -> bool:
        """Whether it was not set aside."""
        return "error" not in self.record

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written about it."""
        main = [self.record["output"]] if "output" in self.record else []
        names = self.record.get("written", main)
        return tuple(self.folder / name for name in names)


@dataclass(frozen=True)
class Predictions:
    """What a folder of predictions holds.

    records: by case: inputs, output, seconds, warnings, and `error` where it failed;
    classes: that cases may belong to, if the model gives one; results: what they are
    called; note: what has to be said of them.
    """

    folder: Path
    records: Mapping[str, Mapping[str, Any]] = field(repr=False)
    classes: tuple[str, ...] = ()
    results: str = "cases"
    note: str = ""
    task: str | None = None

    @property
    def file(self) -> Path:
        """What holds the records."""
        return self.folder / RECORDS

    @property
    def cases(self) -> tuple["PredictedCase", ...]:
        """What became of each case."""
        return tuple(
            PredictedCase(name, self.folder, record)
            for name, record in self.records.items()
        )

    @property
    def done(self) -> int:
        """Cases that are predicted."""
        return len(self.records) - len(self.failed)

    @property
    def failed(self) -> list[str]:
        """Names of the cases that were set aside."""
        return [name for name, record in self.records.items() if "error" in record]

    @property
    def seconds(self) -> float:
        """What all cases took together."""
        return float(sum(record["seconds"] for record in self.records.values()))

    @property
    def summary(self) -> str:
        """How many cases were predicted, in which time."""
        cases = f"{self.done} of {len(self.records)} {self.results}"
        note = f" ({self.note})" if self.note else ""
        return f"{cases} in {self.folder}, {self.seconds:.1f} s{note}"

    @property
    def doubtful(self) -> str:
        """The cases on which the votes agree least, worst first: where poor predictions
        are most probable. Empty unless several votes were asked for doubt on
        `FEWEST_TO_ORDER` cases.
        """
        agreements = {
            name: float(record["agreement"])
            for name, record in self.records.items()
            if record.get("agreement") is not None
        }
        if len(agreements) < FEWEST_TO_ORDER:
            return ""
        worst = sorted(agreements, key=lambda name: agreements[name])
        shown = [f"{name} ({agreements[name]:.2f})" for name in worst[:DOUBTFUL]]
        return f"the votes agree least on {', '.join(shown)}"

    def require_all(self) -> None:
        """Raise `DataError` if a case failed."""
        if self.failed:
            raise DataError(
                f"{len(self.failed)} cases failed: {few(self.failed)}; reasons are in "
                f"{self.file}"
            ).with_result(self)


@described
def predict(
    model: Path | str | Sequence[Path | str],
    input: Path | str,
    out: Path | str,
    *,
    tta: bool | None = None,
    probabilities: bool = False,
    uncertainty: Sequence[UncertaintyKind] = (),
    mc_samples: int = 0,
    scales: Sequence[float] = (1.0,),
    seed: int = 0,
    missing_channels: MissingChannels = "refuse",
    overwrite: bool = False,
    subtype_results: bool = False,
    detection: str | None = None,
    clinical: Path | str | None = None,
    max_missed: float | None = None,
    missed: MissedKind = "voxels",
    weighted_intervals: bool = False,
    cases: Path | str | None = None,
    device: str = "auto",
    precision: PrecisionName = "auto",
    engine: EngineChoice = "torch",
    series: str | None = None,
    slice_tolerance: float | None = None,
    format: str | Sequence[str] | None = None,
    seg_type: SegType = "binary",
    statistics: bool = False,
    console: Console | None = None,
) -> Predictions:
    """Predict label maps for an image, a folder of images or a dataset, or volumes for
    X-rays; several models vote.

    Cases done before by the same model with the same settings are kept; a case that
    fails is set aside with its reason. Raises `BundleError` for models that are damaged
    or do not fit together, `UsageError` for options that the models know nothing of and
    for formats that no case can be written in.
    """
    paths = model_paths(model)
    console = console or Quiet()
    folder = Path(out)
    require_folder_place(folder)
    task = task_of(paths[0])
    how = ResultOptions(seg_type, _codes(paths, Path(input)))
    files = result_files(format, how, task.gives, statistics=statistics)
    options = PredictOptions(
        precision=precision,
        engine=engine,
        seed=seed,
        tta=tta,
        probabilities=probabilities,
        uncertainty=tuple(uncertainty),
        mc_samples=mc_samples,
        scales=tuple(scales),
        missing_channels=missing_channels,
        subtype_results=subtype_results,
        detection=detection,
        clinical=None if clinical is None else Path(clinical),
        max_missed=max_missed,
        missed=missed,
        weighted_intervals=weighted_intervals,
        fractions=files.fractions,
    )
    _require_nifti(options, files)
    predictors = _predictors(task, paths, options, device)
    choice = series_choice(series, slice_tolerance)
    listed = task.inputs(Path(input), predictors[0], console)
    inputs = tuple(case.read_by(choice) for case in listed)
    inputs = inputs if cases is None else chosen_cases(inputs, Path(cases))
    inputs = files.possible(inputs, say=console.say)
    predictor, *others = task.knowing(predictors, inputs, options, console)
    records = predict_cases(
        predictor,
        inputs,
        folder,
        others=others,
        overwrite=overwrite,
        maps=files.maps,
        also=_written_beside(task, predictor, files, folder),
        also_endings=(*task.endings_beside, *files.endings),
        also_done=partial(files.is_done, out=folder),
        tables=files.tables(task.name),
        progress=lambda items, total: console.track(items, total, "predicting"),
        say=console.say,
    )
    return _predictions_of(task, predictor, folder, records)


def _predictions_of(
    task: ModelTask[Any, Any],
    predictor: CasePredictor[Any],
    folder: Path,
    records: Mapping[str, Record],
) -> Predictions:
    """What a folder holds now."""
    return Predictions(
        folder,
        records,
        classes=task.classes(predictor),
        results=task.results,
        note=task.note,
        task=task.name,
    )


def _require_nifti(options: PredictOptions, files: ResultFiles) -> None:
    """Raise `UsageError` where further maps are asked for without any maps."""
    asked = {
        "--detection": options.detection is not None,
        "--max-missed": options.max_missed is not None,
        "--probabilities": options.probabilities,
        "--uncertainty": bool(options.uncertainty),
    }
    for option, is_asked in asked.items():
        if is_asked and not files.maps:
            raise UsageError(
                f"{option} writes maps in NIfTI, which --format leaves out; add nifti to "
                "it"
            )


def made_ready(
    task: ModelTask[Any, Any], models: Sequence[Path], options: PredictOptions
) -> CasePredictor[Any]:
    """Models that predict with some options; those that this process keeps ready,
    unless a table is read, which may be another one the next time.
    """
    if options.clinical is not None:
        return task.predictor(models, options)
    key = key_of(task, models, options)
    return ready_predictor(key, lambda: task.predictor(models, options))


def key_of(
    task: ModelTask[Any, Any], models: Sequence[Path], options: PredictOptions
) -> Hashable:
    """What a predictor is kept under."""
    return task.name, tuple(models), options


def _predictors(
    task: ModelTask[Any, Any],
    models: Sequence[Path],
    options: PredictOptions,
    device: str,
) -> list[CasePredictor[Any]]:
    """The models on each device, made ready."""
    predictors = [
        made_ready(task, models, replace(options, device=each))
        for each in devices_of(device)
    ]
    require_same(predictors)
    return predictors


def _codes(models: Sequence[Path], source: Path) -> Codes:
    """Codes of labels, which may stand in the bundles, then beside the input."""
    folders = [bundle_content(model)[0].parent for model in models]
    folders.append(source if source.is_dir() else source.parent)
    return read_codes([folder / CODES_FILE for folder in folders])


def _written_beside(
    task: ModelTask[Any, Any],
    predictor: CasePredictor[Any],
    files: ResultFiles,
    out: Path,
) -> Callable[[Case, Any], Record]:
    """What writes all that stands beside a map into `out`, and returns what joins its
    record.
    """
    of_task = task.written_beside(predictor, out)

    def write(case: Case, made: Any) -> Record:
        result = task.result(predictor, case, made, files.options)
        return {**of_task(case, made), **files.write(result, out)}

    return write


def chosen_cases(cases: Iterable[Case], file: Path) -> tuple[Case, ...]:
    """The cases whose names stand in a text file, one a line."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{file}: is not UTF-8 text; {ONE_A_LINE}") from error
    except FileNotFoundError as error:
        raise FormatError(f"{file}: file not found; {ONE_A_LINE}") from error
    except OSError as error:
        problem = error.strerror or str(error)
        raise FormatError(f"{file}: {problem}; {ONE_A_LINE}") from error
    wanted = {line.strip() for line in lines if line.strip()}
    chosen = tuple(case for case in cases if case.name in wanted)
    missing = wanted - {case.name for case in chosen}
    if missing:
        raise DataError(f"{file}: cases {sorted(missing)[:5]} are not in the input")
    return chosen
