"""Labels of a dataset beside predictions of networks that were not trained on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trivox.datasets.checks.findings import Finding, warning
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.labels import LabelScheme
from trivox.datasets.reading import read_reference
from trivox.errors import DataError, TrivoxError, of_case
from trivox.evaluation.folders.pairs import label_maps
from trivox.tasks.console import Console
from trivox.tasks.suspects.disagreement import Disagreement, disagreement
from trivox.tasks.suspects.judging import LEAST_CASES, Suspect, suspects
from trivox.volumes.formats import read_header, read_labels
from trivox.volumes.geometry import on_grid_of

CODE = "label-doubtful"
OF_A_RUN = Path("validation") / "predictions"


@dataclass(frozen=True)
class Search:
    """What came out: how many cases were compared, those whose label is probably wrong,
    most doubtful first, those that could not be compared and why, and the prediction of
    each.
    """

    compared: int
    suspects: tuple[Suspect, ...]
    aside: tuple[str, ...] = ()
    predictions: Mapping[str, Path] = field(default_factory=dict)

    @property
    def findings(self) -> list[Finding]:
        """As a check reports them."""
        fix = "look at it (--page FILE.html draws it), then correct it or leave it"
        return [
            warning(CODE, each.case, "; ".join(each.reasons), fix)
            for each in self.suspects
        ]


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
    cases = [
        case
        for case in dataset.training_cases
        if case.label is not None and case.name in files
    ]
    compared: dict[str, Disagreement] = {}
    aside: list[str] = []
    for case in console.track(cases, len(cases), "comparing labels"):
        try:
            compared[case.name] = _compared(case, files[case.name], dataset.labels)
        except TrivoxError as error:
            aside.append(of_case(case.name, str(error)))
    if len(compared) < LEAST_CASES:
        raise DataError(
            f"{source}: {len(compared)} predictions of labelled cases of {dataset.root} "
            f"can be compared, at least {LEAST_CASES} are needed to know what is usual"
            + (f"; {aside[0]}" if aside else "")
        )
    chosen = {case.name: files[case.name] for case in cases if case.name in compared}
    return Search(len(compared), tuple(suspects(compared)), tuple(aside), chosen)


def _compared(case: Case, file: Path, scheme: LabelScheme) -> Disagreement:
    grid = read_header(case.images[0], choice=case.choice).grid
    where = f"{case.name}: image and prediction"
    predicted = on_grid_of(grid, read_labels(file), where=where)
    label = read_reference(case, scheme, grid)
    return disagreement(
        scheme.encode(label.array[0], where=case.name),
        scheme.encode(predicted.array[0], where=case.name),
        scheme,
        label.spacing,
    )
