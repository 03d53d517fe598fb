"""CSV files as people write them: commas or semicolons, with or without a byte order
mark.
"""

import csv
import io
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

    Quoted cells may hold separators and newlines. Raises `FormatError` naming the file
    if it is missing, no UTF-8 text, has a quotation mark without its other, two columns
    of one title or a row with more cells than columns.
    """
    text = _text(file)
    header = next(iter(text.splitlines()), "")
    semicolons = header.count(";") > header.count(",")
    delimiter = ";" if semicolons else ","
    # with newlines as they stand, since quoted cells may hold some
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        columns = tuple(title.strip() for title in next(reader, []))
        _require_different(columns, file)
        rows: dict[int, tuple[str, ...]] = {}
        for row in reader:
            line = reader.line_num
            cells = _cells(row, len(columns), f"{file}, line {line}")
            if any(cells):
                rows[line] = cells
    except csv.Error as error:
        raise FormatError(
            f"{file}, line {reader.line_num}: is no row of a table ({error}); look for "
            "a quotation mark without its other"
        ) from error
    return Table(columns, tuple(rows.values()), tuple(rows))


def _text(file: Path) -> str:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return stream.read()
    except UnicodeDecodeError as error:
        raise FormatError(f"{file}: is not UTF-8 text; save it as CSV UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FormatError(
            f"{file}: cannot be read ({reason}); check the path"
        ) from error


def _require_different(columns: tuple[str, ...], file: Path) -> None:
    for title in columns:
        if title and columns.count(title) > 1:
            raise FormatError(
                f"{file}: two columns are titled '{title}'; rename or remove one"
            )


def _cells(row: list[str], count: int, where: str) -> tuple[str, ...]:
    if any(cell.strip() for cell in row[count:]):
        raise FormatError(
            f"{where}: {len(row)} cells, the table has {count} columns; quote cells "
            "that hold a separator"
        )
    return tuple(cell.strip() for cell in (row + [""] * count)[:count])
