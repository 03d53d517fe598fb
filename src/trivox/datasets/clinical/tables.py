"""Tables with clinical columns: beside the classes to learn from, or of the cases that
are predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from trivox.datasets.class_tables import (
    CASE_TITLES,
    Owners,
    case_column,
    class_column,
    named_cases,
    owners_of,
    plain_title,
    spellings_of,
)
from trivox.datasets.clinical.columns import (
    ClinicalColumn,
    columns_of,
    is_known,
    number_in,
)
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.tables import Table, read_table
from trivox.errors import DataError, FormatError, UsageError, few
from trivox.files import file_hash

Cells = Mapping[str, str]
"""What a row says, by column."""


class Row(NamedTuple):
    """A row: its line in the file, what it calls its case, and what it says of it."""

    line: int
    names: tuple[str, ...]
    cells: Cells


@dataclass(frozen=True, eq=False)
class ClinicalTable:
    """Clinical columns of cases.

    identity: hash of the file.
    """

    file: Path
    rows: tuple[Row, ...]
    identity: str

    def of(self, case: Case) -> Cells:
        """What is said of a case, by its name or else that of its patient; empty:
        nothing.
        """
        for name in (case.name, case.patient):
            if name in self._by_name:
                return self._by_name[name].cells
        return {}

    @cached_property
    def _by_name(self) -> dict[str, Row]:
        """The row of each name: as it stands, else without file ending, else without
        channel number.
        """
        ranked: list[tuple[int, str, Row]] = []
        for row in self.rows:
            for name in row.names:
                for rank, spelling in enumerate(spellings_of(name)):
                    ranked.append((rank, spelling, row))
        rows: dict[str, Row] = {}
        for _, spelling, row in sorted(ranked, key=lambda each: each[0]):
            rows.setdefault(spelling, row)
        return rows

    def require_clear(self, cases: Sequence[Case]) -> None:
        """Raise `DataError` where rows contradict each other about one of `cases`."""
        names = {case.name: (case.name,) for case in cases}
        owners = owners_of(cases)
        said: dict[str, Cells] = {}
        for row in self.rows:
            for case in _named(row, names) or _named(row, owners):
                if said.setdefault(case, row.cells) != row.cells:
                    raise contradiction(self.file, row.line, case)

    def lines(self, cases: Sequence[Case]) -> list[str]:
        """What has to be said of cases that have no row."""
        lacking = [case.name for case in cases if not self.of(case)]
        if not lacking:
            return []
        if len(lacking) == len(cases):
            return [
                f"warning: {self.file}: none of its {len(self.rows)} rows names one of "
                f"the {len(cases)} cases (such as {lacking[0]}); nothing is known of them"
            ]
        return [
            f"{self.file}: has no row of {len(lacking)} of {len(cases)} cases "
            f"({few(lacking)}); nothing is known of them"
        ]


def _named(row: Row, owners: Owners) -> tuple[str, ...]:
    """The cases that the first name which is that of some stands for."""
    meant = (named_cases(name, owners) for name in row.names)
    return next((cases for cases in meant if cases), ())


def contradiction(table: Path, line: int, case: str) -> DataError:
    """The error that rows say different things of a case."""
    return DataError(
        f"{table}, line {line}: says other things of {case} than a line before; keep one "
        "of them"
    )


def with_clinical(
    dataset: Dataset, table: Path | None, wanted: Sequence[str]
) -> Dataset:
    """`dataset` whose cases have the cells of the columns `wanted`.

    A dataset that a run saved has them already. Raises `UsageError` where no CSV is given
    otherwise, `FormatError` for columns that it lacks
    or that are no features (cases, patients, the class), `DataError` for rows that
    contradict each other and columns that nothing can be learnt from.
    """
    if not wanted:
        return dataset
    if table is None and _are_there(dataset, wanted):
        columns_of(dataset.training_cases, wanted)
        return dataset
    if table is None or table.suffix.lower() == ".json":
        raise UsageError(
            f"--clinical {','.join(wanted)}: no table of classes to read from; add "
            "--classes TABLE.csv"
        )
    content = read_table(table)
    owners = owners_of(dataset.cases)
    names = case_column(content, owners)
    titles = dict.fromkeys([content.columns[names]], "names the cases")
    for column in range(len(content.columns)):
        if plain_title(content.columns[column]) in CASE_TITLES:
            titles.setdefault(content.columns[column], "names cases or patients")
    titles[content.columns[class_column(content, names, table)]] = "is the class itself"
    _require_features(table, content, wanted, titles)
    cells: dict[str, Cells] = {}
    for row, line in zip(content.rows, content.lines, strict=True):
        said = _chosen(content, row, wanted)
        for case in named_cases(row[names], owners):
            if cells.setdefault(case, said) != said:
                raise contradiction(table, line, case)
    cases = tuple(
        case.model_copy(update={"clinical": cells.get(case.name, {})})
        for case in dataset.cases
    )
    described = dataset.model_copy(update={"cases": cases})
    columns_of(described.training_cases, wanted)
    return described


def _are_there(dataset: Dataset, wanted: Sequence[str]) -> bool:
    """Whether cases have the cells of all columns that are wanted."""
    there = set[str]().union(*(case.clinical for case in dataset.cases))
    return there >= set(wanted)


def _require_features(
    table: Path, content: Table, wanted: Sequence[str], titles: Mapping[str, str]
) -> None:
    """Raise `FormatError` for columns that the table lacks or that are no features."""
    for name in wanted:
        if name not in content.columns:
            raise FormatError(
                f"{table}: has no column '{name}'; it has {', '.join(content.columns)}"
            )
        if name in titles:
            raise FormatError(
                f"{table}: column '{name}' {titles[name]} and is no feature; take it "
                "out of --clinical"
            )


def _chosen(content: Table, row: Sequence[str], wanted: Sequence[str]) -> Cells:
    return {name: row[content.columns.index(name)] for name in wanted}


def read_clinical(file: Path, columns: Sequence[ClinicalColumn]) -> ClinicalTable:
    """The columns that models read, of cases to predict.

    Cases stand in the columns that are titled so, else in the first that no model
    reads. Raises `FormatError` for a column that is lacking, text in place of a number,
    and a case that occurs twice.
    """
    content = read_table(file)
    wanted = list(dict.fromkeys(column.name for column in columns))
    for name in wanted:
        if name not in content.columns:
            raise FormatError(
                f"{file}: has no column '{name}', which the model reads; it has "
                f"{', '.join(content.columns)}; add it, with empty cells where it is "
                "not known"
            )
    naming = _columns_of_names(content, wanted, file)
    rows: dict[tuple[str, ...], Row] = {}
    for row, line in zip(content.rows, content.lines, strict=True):
        where = f"{file}, line {line}"
        names = tuple(row[column] for column in naming if row[column])
        if names in rows:
            raise FormatError(
                f"{where}: '{', '.join(names)}' occurs a second time; keep one of the "
                "lines"
            )
        cells = _chosen(content, row, wanted)
        _require_numbers(columns, cells, where)
        if names:
            rows[names] = Row(line, names, cells)
    return ClinicalTable(file, tuple(rows.values()), file_hash(file))


def _columns_of_names(content: Table, wanted: Sequence[str], file: Path) -> list[int]:
    """Columns that name cases or patients."""
    others = [n for n, title in enumerate(content.columns) if title not in wanted]
    if not others:
        raise FormatError(
            f"{file}: has no column beside {', '.join(wanted)}; add one titled 'case' "
            "with the names of the cases"
        )
    titled = [n for n in others if plain_title(content.columns[n]) in CASE_TITLES]
    return titled or others[:1]


def _require_numbers(
    columns: Sequence[ClinicalColumn], cells: Cells, where: str
) -> None:
    for column in columns:
        text = cells[column.name]
        if column.categories or not is_known(text):
            continue
        try:
            number_in(text)
        except ValueError as error:
            raise FormatError(
                f"{where}: {column.name} is '{text:.40}', the model learnt numbers; "
                "write a number, or leave it empty"
            ) from error
