"""Tables with clinical columns: beside the classes to learn from, or of the cases that
are predicted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trivox.datasets.class_tables import (
    CASE_TITLES,
    case_column,
    class_column,
    named_cases,
    owners_of,
    plain_title,
)
from trivox.datasets.clinical.columns import (
    ClinicalColumn,
    columns_of,
    is_known,
    number_in,
)
from trivox.datasets.dataset import Case, Dataset
from trivox.datasets.tables import Table, read_table
from trivox.errors import DataError, FormatError, UsageError
from trivox.files import file_hash

Cells = Mapping[str, str]
"""What a row says, by column."""


@dataclass(frozen=True)
class ClinicalTable:
    """Clinical columns of cases.

    rows: by what stands in the column of cases; identity: hash of the file.
    """

    rows: Mapping[str, Cells]
    identity: str

    def of(self, case: Case) -> Cells:
        """What is said of a case, by its name or that of its patient; empty: nothing."""
        if case.name in self.rows:
            return self.rows[case.name]
        owners = owners_of([case])
        for name, cells in self.rows.items():
            if named_cases(name, owners):
                return cells
        return {}


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
                raise DataError(
                    f"{table}, line {line}: says other things of {case} than a line "
                    "before; keep one of them"
                )
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
    """The columns that a model reads, of cases to predict.

    Cases stand in the column that is titled so, else in the first. Raises
    `FormatError` for a column that is lacking, text in place of a number, and a case
    that occurs twice.
    """
    content = read_table(file)
    for column in columns:
        if column.name not in content.columns:
            raise FormatError(
                f"{file}: has no column '{column.name}', which the model reads; add it, "
                "with empty cells where it is not known"
            )
    names = _names_of_cases(content)
    rows: dict[str, Cells] = {}
    for row, line in zip(content.rows, content.lines, strict=True):
        where = f"{file}, line {line}"
        if row[names] in rows:
            raise FormatError(
                f"{where}: '{row[names]}' occurs a second time; keep one of the lines"
            )
        cells = _chosen(content, row, [column.name for column in columns])
        _require_numbers(columns, cells, where)
        rows[row[names]] = cells
    return ClinicalTable(rows, file_hash(file))


def _names_of_cases(content: Table) -> int:
    titled = [plain_title(title) in CASE_TITLES for title in content.columns]
    return titled.index(True) if any(titled) else 0


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
