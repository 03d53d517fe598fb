"""Answers about cases as files: `classes.csv`, and `subtype_results.csv` as a challenge
wants it.
"""

import csv
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from trivox.datasets.tables import read_table
from trivox.errors import DataError, FormatError
from trivox.files import write_text
from trivox.inference.writing import ENDING

CLASSES_FILE = "classes.csv"
SUBTYPE_FILE = "subtype_results.csv"
FIRST = ("case", "class")
PROBABILITY = "probability_"
LAST = "flags"
BETWEEN_FLAGS = "; "
ROUNDING = 2e-6
"""Probabilities have 6 digits."""
SUM_TOLERANCE = 0.02
"""Files by others may have 2 digits."""
NUMBERED = re.compile(r"(?:subtype)?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class ClassAnswer:
    """What was answered for a case: probability of each class, in the order of the
    classifier's outputs.

    flags: what makes the answer doubtful, short texts without `; `.
    """

    case: str
    probabilities: Mapping[str, float]
    flags: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The most probable class; the first of equals."""
        return max(self.probabilities, key=lambda name: self.probabilities[name])


def write_classes(
    path: Path, rows: Sequence[ClassAnswer], *, classes: Sequence[str]
) -> None:
    """Write `case,class,probability_<name>...,flags` atomically, cases in natural order
    (case_2 before case_10).

    Raises `DataError` for a case that occurs twice or has other classes than `classes`.
    """
    lines = [[*FIRST, *(PROBABILITY + name for name in classes), LAST]]
    for row in _ordered(rows, classes):
        probabilities = [f"{row.probabilities[name]:.6f}" for name in classes]
        lines.append(
            [row.case, row.answer, *probabilities, BETWEEN_FLAGS.join(row.flags)]
        )
    write_text(path, _csv(lines))


def write_class_tables(
    folder: Path,
    records: Mapping[str, Mapping[str, Any]],
    *,
    classes: Sequence[str],
    numbered: bool,
) -> None:
    """Write the classes of the cases that did not fail, from their records, and, if
    asked for, as numbers too.
    """
    rows = []
    for name, record in records.items():
        if "error" not in record:
            answer = record["class"]
            flags = tuple(answer["flags"])
            rows.append(ClassAnswer(name, answer["probabilities"], flags))
    write_classes(folder / CLASSES_FILE, rows, classes=classes)
    if numbered:
        file = folder / SUBTYPE_FILE
        write_subtype_results(file, rows, classes=classes, ending=ENDING)


def read_classes(
    path: Path, *, classes: Sequence[str] | None = None
) -> tuple[ClassAnswer, ...]:
    """Read what `write_classes` wrote; the column `flags` may be missing.

    classes: those that the file must have, in any order; None: those it has. Raises
    `FormatError` naming file and line.
    """
    table = read_table(path)
    columns = _Columns.of(list(table.columns), path)
    order = list(classes or columns.classes)
    if len(set(columns.classes)) < len(columns.classes):
        raise FormatError(
            f"{path}, line 1: has probabilities of {', '.join(columns.classes)} more "
            "than once"
        )
    if set(columns.classes) != set(order):
        raise FormatError(
            f"{path}, line 1: has probabilities of {', '.join(columns.classes)}; "
            f"expected {', '.join(order)}, each once"
        )
    answers: dict[str, ClassAnswer] = {}
    for number, cells in zip(table.lines, table.rows, strict=True):
        where = f"{path}, line {number}"
        answer = columns.read(cells, order, where)
        if answer.case in answers:
            raise FormatError(
                f"{where}: case '{answer.case}' occurs a second time; keep one of the "
                "lines"
            )
        answers[answer.case] = answer
    if not answers:
        raise FormatError(f"{path}: holds no case below its header; write it again")
    return tuple(answers.values())


@dataclass(frozen=True)
class _Columns:
    """What the columns of a file hold: classes in its order, and whether there are
    flags.
    """

    classes: list[str]
    flagged: bool

    @classmethod
    def of(cls, header: list[str], path: Path) -> "_Columns":
        """Of a header; raises `FormatError` for one that cannot be."""
        names = [name for name in header if name.startswith(PROBABILITY)]
        flagged = header[-1:] == [LAST]
        expected = [*FIRST, *names, *([LAST] if flagged else [])]
        if header != expected or len(names) < 2:
            raise FormatError(
                f"{path}, line 1: the columns are {header}; they must be case, class, "
                "probability_<name> for each of two or more classes, and flags"
            )
        return cls([name.removeprefix(PROBABILITY) for name in names], flagged)

    def read(
        self, cells: Sequence[str], order: Sequence[str], where: str
    ) -> ClassAnswer:
        """The answer in a row, with its classes in another order."""
        case, answer, *numbers = cells
        if not case:
            raise FormatError(
                f"{where}: has no case name; write it in the first column"
            )
        values = [_probability(text, where) for text in numbers[: len(self.classes)]]
        probabilities = dict(zip(self.classes, values, strict=True))
        if abs(sum(values) - 1) > SUM_TOLERANCE:
            raise FormatError(
                f"{where}: the probabilities of '{case}' sum to {sum(values):.4f}; "
                "they must sum to 1"
            )
        if probabilities.get(answer, -1) < max(values) - ROUNDING:
            raise FormatError(
                f"{where}: class '{answer}' of '{case}' is not the most probable one; "
                "correct class or probabilities"
            )
        flags: tuple[str, ...] = ()
        if self.flagged:
            flags = tuple(flag for flag in cells[-1].split(BETWEEN_FLAGS) if flag)
        return ClassAnswer(case, {name: probabilities[name] for name in order}, flags)


def write_subtype_results(
    path: Path, rows: Sequence[ClassAnswer], *, classes: Sequence[str], ending: str
) -> None:
    """Write `Names,Subtype` atomically: file name (case and `ending`, for example
    `.nii.gz`) and number of the answer.

    The number is that in the names of the classes if all are numbers or `subtypeN`,
    else the place in `classes`, from 0.
    """
    numbers = class_numbers(classes)
    lines = [
        [row.case + ending, str(numbers[row.answer])] for row in _ordered(rows, classes)
    ]
    write_text(path, _csv([["Names", "Subtype"], *lines]))


def class_numbers(classes: Sequence[str]) -> dict[str, int]:
    """Number of each class in files that know no names; see `write_subtype_results`."""
    matches = [NUMBERED.fullmatch(name) for name in classes]
    numbers = [int(match[1]) for match in matches if match]
    if len(set(numbers)) < len(classes):
        numbers = list(range(len(classes)))
    return dict(zip(classes, numbers, strict=True))


def natural_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Key that sorts runs of digits as numbers."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple(
        (0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts
    )


def _ordered(rows: Sequence[ClassAnswer], classes: Sequence[str]) -> list[ClassAnswer]:
    seen: set[str] = set()
    for row in rows:
        if row.case in seen:
            raise DataError(f"{row.case}: answered twice; give each case once")
        seen.add(row.case)
        if set(row.probabilities) != set(classes):
            raise DataError(
                f"{row.case}: has probabilities of {', '.join(row.probabilities)}, not "
                f"of {', '.join(classes)}"
            )
    return sorted(rows, key=lambda row: natural_order(row.case))


def _csv(lines: Iterable[Sequence[str]]) -> str:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _probability(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise FormatError(
            f"{where}: '{text}' is no probability; write a number from 0 to 1"
        )
    return value
