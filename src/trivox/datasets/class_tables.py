"""Classes of cases from a table: `case,class` and what others call those columns, or
`{case: class}` as JSON.

Reads nnU-Net-side `classification_labels.csv`, BraTS' `name_mapping.csv`, result files
with `Names,Subtype` and what `trivox predict` writes. A class that is not known stays
so: nothing is filled in.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.listing import ADVICE, CHANNEL_SUFFIX
from trivox.datasets.tables import Table, read_table
from trivox.errors import DataError, FormatError
from trivox.files import read_json
from trivox.volumes.formats import case_stem

CASE_TITLES = (
    "case",
    "name",
    "names",
    "id",
    "caseid",
    "caseidentifier",
    "identifier",
    "file",
    "filename",
    "image",
    "subject",
    "subjectid",
    "patient",
    "patientid",
)
CLASS_TITLES = (
    "subtype",
    "grade",
    "label",
    "diagnosis",
    "classlabel",
    "classname",
    "category",
    "type",
    "target",
    "y",
)
"""Titles of columns, in small letters and without anything but letters; `class` goes
before all others.
"""

UNKNOWN = ("", "na", "n/a", "nan", "<na>")
MOST_CLASSES = 50


def class_of(content: object) -> str | None:
    """The class that a cell or JSON value names, None where it is blank, NA or NaN;
    `1.0` (a column with gaps) is `1`.

    Raises `ValueError` for anything but text, a number or nothing.
    """
    if content is not None and not isinstance(content, str | int | float):
        raise ValueError(f"a class is a name or a number, found {content!r:.60}")
    text = "" if content is None else str(content).strip()
    return None if text.lower() in UNKNOWN else re.sub(r"^(-?\d+)\.0+$", r"\1", text)


def class_order(classes: Iterable[str | None], *, where: Path | str) -> tuple[str, ...]:
    """The classes of cases, each once, as people sort them: `HGG LGG`, `subtype2
    subtype10`, `-1 0 1`.

    Raises `DataError` naming `where` for names that differ in nothing but capitals, or
    more than 50 classes.
    """
    names = sorted({name for name in classes if name is not None}, key=_natural)
    spelled = Counter(name.casefold() for name in names)
    alike = [name for name in names if spelled[name.casefold()] > 1]
    if alike:
        raise DataError(
            f"{where}: classes {', '.join(alike)} differ in capitals alone; write them "
            "alike"
        )
    if len(names) > MOST_CLASSES:
        raise DataError(
            f"{where}: {len(names)} different classes ({', '.join(names[:4])}...); a "
            f"number, not a class? At most {MOST_CLASSES} are supported"
        )
    return tuple(names)


def _natural(name: str) -> tuple[object, ...]:
    """Numbers first, by value; then names, their digits by value."""
    if re.fullmatch(r"-?\d+(\.\d+)?", name):
        return (0, float(name), name)
    parts = re.split(r"(\d+)", name.casefold())
    keys = [_size(part) if part.isdecimal() else (-1, part) for part in parts]
    return (1, keys, name)


def _size(digits: str) -> tuple[int, str]:
    """Sorts whole numbers by value, however many digits they have."""
    plain = digits.lstrip("0")
    return len(plain), plain


@dataclass(frozen=True)
class ClassTable:
    """Class of each case that a table names (None: it says that it is not known), and
    how many rows name no case.
    """

    classes: Mapping[str, str | None]
    passed_over: int


def with_classes(dataset: Dataset, table: Path) -> Dataset:
    """`dataset` with the classes that `table` gives, in place of any that it had; cases
    without a row have none.

    table: CSV with a column of cases and one of classes, or JSON `{case: class}`. The
    order of classes stays that of `dataset` if it has the same, else they are sorted.
    Raises what `read_class_table` raises.
    """
    class_names = read_class_table(table, dataset.cases).classes
    classes = class_order(class_names.values(), where=table)
    if not classes:
        raise DataError(
            f"{table}: says of none of the {len(dataset.cases)} cases which class it "
            "has; fill the column"
        )
    cases = tuple(
        case.model_copy(update={"class_name": class_names.get(case.name)})
        for case in dataset.cases
    )
    order = dataset.classes if set(dataset.classes) == set(classes) else classes
    return dataset.model_copy(update={"classes": order, "cases": cases})


def read_class_table(table: Path, cases: Sequence[Case]) -> ClassTable:
    """Find the classes of `cases` in a CSV or JSON file.

    Cases are named with or without file ending and channel number, or by their patient.
    Raises `FormatError` if columns cannot be told or nothing in it is one of `cases`,
    `DataError` if rows contradict each other.
    """
    owners = owners_of(cases)
    is_json = table.suffix.lower() == ".json"
    pairs = _json_pairs(table) if is_json else _csv_pairs(table, owners)
    classes: dict[str, str | None] = {}
    passed_over = 0
    for name, class_name in pairs:
        known = named_cases(name, owners)
        passed_over += not known
        for case in known:
            earlier = classes.get(case)
            if None not in (earlier, class_name) and earlier != class_name:
                raise DataError(
                    f"{table}: {case} is both {earlier} and {class_name}; remove the "
                    "wrong row"
                )
            classes[case] = class_name if earlier is None else earlier
    if not classes:
        raise FormatError(
            f"{table}: none of its {len(pairs)} rows names one of the {len(cases)} "
            f"cases (such as {cases[0].name}); give each case by the name of its files"
        )
    return ClassTable(classes, passed_over)


Owners = Mapping[str, tuple[str, ...]]


def owners_of(cases: Sequence[Case]) -> Owners:
    """Cases that a name stands for: the case of this name, else all of the patient of
    this name.
    """
    patients: dict[str, tuple[str, ...]] = {}
    for case in cases:
        patients[case.patient] = (*patients.get(case.patient, ()), case.name)
    return patients | {case.name: (case.name,) for case in cases}


def named_cases(name: str, owners: Owners) -> tuple[str, ...]:
    """The cases that a cell names: with or without file ending and channel number."""
    spellings = spellings_of(name)
    return next((owners[spelling] for spelling in spellings if spelling in owners), ())


def spellings_of(name: str) -> tuple[str, ...]:
    """What a case may be called where a cell says `name`, the likeliest first."""
    stem = case_stem(Path(name))
    numbered = CHANNEL_SUFFIX.fullmatch(stem)
    return (name, stem, *((numbered["case"],) if numbered else ()))


def _json_pairs(file: Path) -> list[tuple[str, str | None]]:
    content = read_json(file)
    if not isinstance(content, dict):
        raise FormatError(
            f'{file}: must map cases to classes, such as {{"case_01": "HGG"}}; {ADVICE}'
        )
    try:
        return [(name, class_of(value)) for name, value in content.items()]
    except ValueError as error:
        raise FormatError(f"{file}: {error}; {ADVICE}") from error


def _csv_pairs(file: Path, owners: Owners) -> list[tuple[str, str | None]]:
    table = read_table(file)
    if len(table.columns) < 2:
        raise FormatError(
            f"{file}: needs a column of cases and one of classes, found "
            f"{[*table.columns]}"
        )
    cases = case_column(table, owners)
    if named_cases(table.columns[cases], owners):
        raise FormatError(
            f"{file}: has no titles over its columns; add a first line such as "
            "case,class"
        )
    classes = class_column(table, cases, file)
    return [(row[cases], class_of(row[classes])) for row in table.rows]


def case_column(table: Table, owners: Owners) -> int:
    """The column that names the most cases; if several do, the one whose title says so,
    else the first.
    """

    def likelihood(column: int) -> tuple[int, bool, int]:
        title = table.columns[column]
        cells = (title, *(row[column] for row in table.rows))
        matches = sum(bool(named_cases(cell, owners)) for cell in cells)
        return (matches, plain_title(title) in CASE_TITLES, -column)

    return max(range(len(table.columns)), key=likelihood)


def class_column(table: Table, cases: int, file: Path) -> int:
    """The column titled `class`, else the only one with a known title, else the only
    other column.
    """
    others = [column for column in range(len(table.columns)) if column != cases]
    for wanted in (("class",), CLASS_TITLES):
        known = [
            column for column in others if plain_title(table.columns[column]) in wanted
        ]
        if len(known) == 1:
            return known[0]
        others = known or others
    if len(others) == 1:
        return others[0]
    titles = [table.columns[column] for column in others]
    raise FormatError(
        f"{file}: which of the columns {titles} is the class? Name that one 'class'"
    )


def plain_title(text: str) -> str:
    """A title in small letters and without anything but letters."""
    return re.sub("[^a-z]", "", text.lower())
