"""Labels of a dataset beside predictions of networks that were not trained on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trivox.datasets.checks.findings import Finding, warning
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import read_prediction, read_reference
from trivox.errors import DataError, TrivoxError, of_case
from trivox.evaluation.folders.pairs import label_maps, require_same_meaning
from trivox.tasks.console import Console
from trivox.tasks.suspects.disagreement import Disagreement, disagreement
from trivox.tasks.suspects.judging import LEAST_CASES, Suspect, suspects
from trivox.volumes.formats import read_header

CODE = "label-doubtful"
NOT_COMPARED = "label-not-compared"
OF_A_RUN = Path("validation") / "predictions"


@dataclass(frozen=True)
class Search:
    """What came out: how many cases were compared, those whose label is probably wrong,
    most doubtful first, those that could not be compared and why, and the prediction of
    each.
    """

    compared: int
    suspects: tuple[Suspect, ...]
    aside: Mapping[str, str] = field(default_factory=dict)
    predictions: Mapping[str, Path] = field(default_factory=dict)

    @property
    def asides(self) -> list[str]:
        """A line for each case that could not be compared."""
        return _lines(self.aside)

    @property
    def findings(self) -> list[Finding]:
        """As a check reports them."""
        fix = "look at it (--page FILE.html draws it), then correct it or leave it"
        doubtful = [
            warning(CODE, each.case, "; ".join(each.reasons), fix)
            for each in self.suspects
        ]
        others = [
            warning(NOT_COMPARED, case, reason, "")
            for case, reason in self.aside.items()
        ]
        return [*doubtful, *others]


def predictions_in(source: Path) -> dict[str, Path]:
    """Label maps by case: of a run those of its validation, which were made by networks
    that had not seen the cases; else those of a folder. Raises `DataError` for none.
    """
    folder = source / OF_A_RUN
    files = label_maps(folder if folder.is_dir() else source)
    if not files:
        raise DataError(
            f"{source}: holds no label maps; give a run, or a folder of predictions by "
            "networks that were not trained on these cases"
        )
    return files


def search(dataset: Dataset, source: Path, console: Console) -> Search:
    """Compare the labels of a dataset with predictions; raises `DataError` where fewer
    than 8 cases can be compared.
    """
    if dataset.labels is None:
        raise DataError(f"{dataset.root}: has no labels to compare with predictions")
    files = predictions_in(source)
    require_same_meaning(source, dataset.labels)
    labelled = [case for case in dataset.training_cases if case.label is not None]
    cases = [case for case in labelled if case.name in files]
    compared: dict[str, Disagreement] = {}
    aside: dict[str, str] = {}
    for case in console.track(cases, len(cases), "comparing labels"):
        try:
            compared[case.name] = _compared(case, files[case.name], dataset.labels)
        except TrivoxError as error:
            aside[case.name] = str(error)
    if len(compared) < LEAST_CASES:
        raise DataError(
            f"{source}: {len(compared)} predictions of labelled cases of {dataset.root} "
            f"can be compared, at least {LEAST_CASES} are needed to know what is usual"
            + "".join(f"; {line}" for line in _lines(aside)[:1])
        )
    console.say(f"{len(compared)} of {len(labelled)} labels compared with predictions")
    chosen = {name: files[name] for name in compared}
    return Search(len(compared), tuple(suspects(compared)), aside, chosen)


def _lines(aside: Mapping[str, str]) -> list[str]:
    return [of_case(case, reason) for case, reason in aside.items()]


def _compared(case: Case, file: Path, scheme: LabelScheme) -> Disagreement:
    if case.label is not None and file.samefile(case.label):
        raise DataError(f"{file}: is the label itself, which no network predicted")
    grid = read_header(case.images[0], choice=case.choice).grid
    predicted = read_prediction(file, case, scheme, grid)
    label = read_reference(case, scheme, grid)
    return disagreement(
        scheme.encode(label.array[0], where=case.name),
        scheme.encode(predicted.array[0], where=case.name),
        scheme,
        label.spacing,
    )
