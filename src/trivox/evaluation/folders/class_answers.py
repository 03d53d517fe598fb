"""Answers in a file of predictions against the classes that a dataset or a table gives."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from trivox.datasets.class_tables import read_class_table
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.tables import read_table
from trivox.errors import DataError
from trivox.evaluation.folders.class_section import classification_section
from trivox.evaluation.metrics.class_content import ClassificationSection
from trivox.evaluation.metrics.classification import ClassPredictions
from trivox.inference.classes.files import (
    CLASSES_FILE,
    ClassAnswer,
    class_numbers,
    read_classes,
)


def answers_file(predictions: Path) -> Path | None:
    """The file of answers in a folder of predictions, or `predictions` itself if it is
    a CSV; None if there is none.
    """
    is_table = predictions.suffix.lower() == ".csv"
    file = predictions if is_table else predictions / CLASSES_FILE
    return file if file.is_file() else None


def is_class_table(path: Path) -> bool:
    """Whether `path` is a CSV without images, so a table of classes rather than a
    manifest.
    """
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    return not any(title.startswith("image") for title in read_table(path).columns)


def measure_answers(
    predictions: Path, *, table: Path | None, dataset: Dataset | None
) -> tuple[ClassificationSection | None, list[str]]:
    """The section `classification` of metrics.json, and warnings; None where there are
    no answers or no classes.

    table: classes of the cases (see `read_class_table`); None: those of `dataset`. The
    majority answer is that of the cases of `dataset` without an answer here, if their
    classes are known. Raises `DataError` if classes were given but there are no
    answers, no case is in both, or a case has a class that the model cannot answer
    with.
    """
    file = answers_file(predictions)
    if file is None and table is not None:
        raise DataError(
            f"{predictions}: holds no {CLASSES_FILE}, so there is nothing to compare "
            f"with {table}; predict with a model that was trained with classes"
        )
    if file is None:
        return None, []
    answers = read_classes(file)
    known, warnings = _known_classes(answers, table, dataset)
    if known is None:
        return None, [
            f"{file} is not measured: the references have no classes; give a table of "
            "them"
        ]
    classes = tuple(answers[0].probabilities)
    where = table or (dataset.root if dataset else file)
    truth = _indices(known, classes, where=where)
    predicted = _predictions(answers, classes, truth)
    answered = set(predicted.names)
    others = [index for case, index in truth.items() if case not in answered]
    section = classification_section(
        predicted,
        seed=0,
        training=np.array(others, dtype=np.int64) if others else None,
        flags={answer.case: answer.flags for answer in answers},
        warnings=warnings,
    )
    return section, []


def _predictions(
    answers: Sequence[ClassAnswer],
    classes: tuple[str, ...],
    truth: Mapping[str, int],
) -> ClassPredictions:
    """The answers as arrays; truth: index of each case's class, if it is known."""
    indices = [truth.get(answer.case, -1) for answer in answers]
    probabilities = [list(answer.probabilities.values()) for answer in answers]
    return ClassPredictions(
        names=tuple(answer.case for answer in answers),
        truth=np.array(indices, dtype=np.int64),
        probabilities=np.array(probabilities, dtype=np.float64),
        classes=classes,
    )


def _known_classes(
    answers: Sequence[ClassAnswer], table: Path | None, dataset: Dataset | None
) -> tuple[dict[str, str] | None, list[str]]:
    """Class of each case that is known, None if nobody says any; and warnings about
    cases that cannot be measured.
    """
    if dataset is not None:
        cases = dataset.cases
    else:
        cases = tuple(Case(name=answer.case, images=()) for answer in answers)
    given: Mapping[str, str | None] = {case.name: case.class_name for case in cases}
    warnings = []
    if table is not None:
        content = read_class_table(table, cases)
        given = content.classes
        if content.passed_over and dataset is None:
            warnings.append(
                f"{content.passed_over} rows of {table} name no case that was answered"
            )
    known = {case: name for case, name in given.items() if name is not None}
    if not known:
        return None, []
    without = [answer.case for answer in answers if answer.case not in known]
    if len(without) == len(answers):
        raise DataError(
            f"the class of none of the {len(answers)} answered cases ({without[0]}...) "
            f"is known; name cases as in {table or 'the dataset'}"
        )
    if without:
        warnings.append(
            f"{len(without)} of {len(answers)} answered cases have no known class and "
            "are not measured"
        )
    return known, warnings


def _indices(
    known: Mapping[str, str], classes: tuple[str, ...], *, where: Path
) -> dict[str, int]:
    """Place of each case's class in `classes`; numbers stand for classes where none is
    called so.
    """
    numbers = {str(number): name for name, number in class_numbers(classes).items()}
    written = set(known.values())
    as_numbers = written <= set(numbers) and not written <= set(classes)
    indices: dict[str, int] = {}
    for case, text in known.items():
        name = numbers[text] if as_numbers else text
        if name not in classes:
            raise DataError(
                f"{where}: {case} has class '{name}', the answers are "
                f"{', '.join(classes)}; use the same names"
            )
        indices[case] = classes.index(name)
    return indices
