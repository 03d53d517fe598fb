"""What all parts measured as tables in Markdown."""

from collections.abc import Mapping
from typing import Any

PRETENDED = (
    "**On a pretended GPU: this shows that everything runs, and counts. It says nothing "
    "of speed.**"
)


def page(parts: Mapping[str, Mapping[str, Any]]) -> str:
    """A heading and a table for each part."""
    pretended = any(content["pretended"] for content in parts.values())
    blocks = ["# What a GPU does with trivox", *([PRETENDED] if pretended else [])]
    for part, content in parts.items():
        blocks.append(f"## {part}: {content['ended']}")
        facts = part == "facts"
        blocks.append(listed(content) if facts else table(content))
    return "\n\n".join(blocks) + "\n"


def table(content: Mapping[str, Any]) -> str:
    """A row for each that was measured, a column for each value that any of them has."""
    rows = content["rows"]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns.sort(key=lambda column: column == "error")
    if not rows:
        return "nothing was measured"
    lines = [
        _line([_heading(column) for column in columns]),
        "|" + "---|" * len(columns),
    ]
    for row in rows:
        cells = [_cell(key, row.get(key)) for key in columns]
        lines += [_line(cells)]
    return "\n".join(lines)


def listed(content: Mapping[str, Any]) -> str:
    """Facts as lines: they have no columns in common."""
    lines = []
    for row in content["rows"]:
        values = [
            f"{_heading(key)}: {_cell(key, value)}"
            for key, value in row.items()
            if key != "name"
        ]
        lines.append(f"- {row['name']}: {', '.join(values)}")
    return "\n".join(lines)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(key: str) -> str:
    unit = {"seconds": "ms", "bytes": "MB"}
    stem, _, last = key.rpartition("_")
    if stem and last in unit:
        return f"{stem.replace('_', ' ')} ({unit[last]})"
    return key.replace("_", " ")


def _cell(key: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | int) and not key.endswith("_bytes"):
        return str(value)
    if not isinstance(value, int | float):
        return str(value).replace("|", "/")
    if key.endswith("_bytes"):
        return f"{value / 1e6:,.1f}"
    if key.endswith("_seconds"):
        return f"{1000 * value:.3g}"
    return f"{value:.3g}"
