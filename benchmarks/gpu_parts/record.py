"""What a part measured: written to its JSON after every row, so that a machine that is
lost, or a time limit, costs one row.

A row that was begun and not finished says so: a part that is started again goes on with
the next.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

LOST = "ended without an answer"
SPEEDS = ("seconds", "per_second", "busy", "utilisation")
"""Ends of the names of what only a GPU can say; never written for a pretended one."""

Row = Mapping[str, Any]


class Record:
    """The rows of a part in `file`.

    pretended: the device is, and sizes are to be those of a trial.
    """

    def __init__(self, file: Path, *, pretended: bool = False) -> None:
        self.file = file
        self.pretended = pretended
        self.rows: dict[str, Row] = {}
        if file.exists():
            content = json.loads(file.read_text(encoding="utf-8"))
            self.rows = {row["name"]: row for row in content["rows"]}

    def measure(self, name: str, work: Callable[[], Row]) -> None:
        """Add the row that `work` gives, or the error that it ends with; a row that is
        there already is not measured again.
        """
        if name in self.rows:
            return
        self._set(name, {"error": LOST})
        try:
            row = dict(work())
        except Exception as error:
            line = (str(error).strip() or "no message").splitlines()[0]
            row = {"error": f"{type(error).__name__}: {line}"[:200]}
        self._set(name, row)

    def _set(self, name: str, row: Row) -> None:
        if self.pretended:
            row = {key: value for key, value in row.items() if not is_speed(key)}
        self.rows[name] = {"name": name, **row}
        content = {"pretended": self.pretended, "rows": list(self.rows.values())}
        unfinished = self.file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(content, indent=2), encoding="utf-8")
        unfinished.replace(self.file)


def is_speed(key: str) -> bool:
    """Whether a value says how fast something is."""
    return key.endswith(SPEEDS)
