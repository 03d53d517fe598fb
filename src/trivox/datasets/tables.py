"""CSV files as people write them: commas or semicolons, with or without a byte order
mark.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from trivox.errors import FormatError


@dataclass(frozen=True)
class Table:
    """Column titles, and for each row its cells (as many as there are columns,
    stripped) and the line it stands on.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]


def read_table(file: Path) -> Table:
    """Read a CSV; missing cells at the end of a row are empty, empty rows are left out.

    Raises `FormatError` naming the file if it is missing, no UTF-8 text, has two
    columns of one title or a row with more cells than columns.
    """
    try:
        text = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FormatError(f"{file}: is not UTF-8 text; save it as CSV UTF-8") from error
    except OSError as error:
        raise FormatError(
            f"{file}: cannot be read ({error.strerror}); check the path"
        ) from error
    header = text[0] if text else ""
    semicolons = header.count(";") > header.count(",")
    reader = csv.reader(text, delimiter=";" if semicolons else ",")
    columns = tuple(title.strip() for title in next(reader, []))
    for title in columns:
        if title and columns.count(title) > 1:
            raise FormatError(
                f"{file}: two columns are titled '{title}'; rename or remove one"
            )
    rows: dict[int, tuple[str, ...]] = {}
    for row in reader:
        line = reader.line_num
        cells = _cells(row, len(columns), f"{file}, line {line}")
        if any(cells):
            rows[line] = cells
    return Table(columns, tuple(rows.values()), tuple(rows))


def _cells(row: list[str], count: int, where: str) -> tuple[str, ...]:
    if any(cell.strip() for cell in row[count:]):
        raise FormatError(
            f"{where}: {len(row)} cells, the table has {count} columns; quote cells "
            "that hold a separator"
        )
    return tuple(cell.strip() for cell in (row + [""] * count)[:count])
