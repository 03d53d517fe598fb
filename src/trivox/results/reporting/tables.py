"""Statistics of all cases as files: `statistics.json`, and `statistics.csv` with one row
a case and structure.
"""

import csv
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trivox.files import write_json, write_text
from trivox.inference.classes.files import natural_order
from trivox.inference.records import ALL_CASES, read_records
from trivox.inference.writing import Record
from trivox.results.case import CaseResult
from trivox.results.measuring.rows import (
    CONVENTIONS,
    UNITS,
    CaseStatistics,
    Intensity,
    StatisticsFile,
    StructureRow,
)
from trivox.schema import stamped
from trivox.version import NOTICE

JSON_FILE = "statistics.json"
CSV_FILE = "statistics.csv"
TABLES = (JSON_FILE, CSV_FILE)
STATISTICS = "statistics"
"""Where they stand in the record of a case."""
PLAIN = (
    "present",
    "truncated",
    "touches",
    "voxels",
    "seen_ml",
    "volume_ml",
    "volume_ml_low",
    "volume_ml_high",
    "longest_mm",
    "axial_long_mm",
    "axial_short_mm",
    "axial_slice",
    "components",
)
"""What stands in one column of the table."""
INTENSITIES = tuple(Intensity.__annotations__)
SPREAD = {
    "volume_ci95_ml": ("volume_low_ml", "volume_high_ml"),
    "centroid_ras_mm": (
        "centroid_right_mm",
        "centroid_anterior_mm",
        "centroid_superior_mm",
    ),
}
"""What stands in several."""
_CASE = TypeAdapter(CaseStatistics)


def statistics_record(result: CaseResult) -> Record:
    """What joins the record of a case whose structures are measured."""
    units = zip(result.channels, result.hounsfield, strict=True)
    statistics: CaseStatistics = {
        "units": {channel: "HU" if is_hu else None for channel, is_hu in units},
        "spacing_zyx_mm": list(result.image.spacing),
        "structures": dict(result.structures),
    }
    return {STATISTICS: statistics}


def is_measured(record: Mapping[str, Any]) -> bool:
    """Whether the record of a case holds what `statistics_record` says, with every
    number that is measured today.
    """
    try:
        statistics = _CASE.validate_python(record.get(STATISTICS))
    except ValidationError:
        return False
    wanted = StructureRow.__annotations__.keys()
    return all(row.keys() == wanted for row in statistics["structures"].values())


def write_tables(
    records: Mapping[str, Mapping[str, Any]], folder: Path, *, task: str
) -> None:
    """Write both tables from the records of the cases that were measured, in natural
    order; nothing in a folder whose predictions were never measured.
    """
    if read_records(folder).get("files", {}).get(JSON_FILE) != ALL_CASES:
        return
    names = sorted(records, key=natural_order)
    cases = {n: records[n][STATISTICS] for n in names if is_measured(records[n])}
    content: StatisticsFile = {
        "notice": NOTICE,
        "units": UNITS,
        "conventions": CONVENTIONS,
        "cases": cases,
    }
    write_json(folder / JSON_FILE, stamped(content, task))
    write_text(folder / CSV_FILE, _table(cases))


def _table(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """One row a case and structure; empty is what is not known."""
    rows = list(_rows(cases))
    columns = dict.fromkeys(["case", "label"])
    for row in rows:
        columns |= dict.fromkeys(row)
    text = StringIO()
    writer = csv.DictWriter(text, list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _rows(cases: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, object]]:
    for case, statistics in cases.items():
        for label, row in statistics["structures"].items():
            yield {"case": case, "label": label, **_columns(row)}


def _columns(row: Mapping[str, Any]) -> dict[str, object]:
    columns: dict[str, object] = {name: _cell(row[name]) for name in PLAIN}
    for name, parts in SPREAD.items():
        values = row[name] or [None] * len(parts)
        columns |= dict(zip(parts, values, strict=True))
    for channel, intensity in row["intensity"].items():
        known = intensity or {}
        columns |= {f"{channel}_{name}": known.get(name) for name in INTENSITIES}
    return columns


def _cell(value: object) -> object:
    """A value as it stands in a cell."""
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(value) if isinstance(value, list) else value
