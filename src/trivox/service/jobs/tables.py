"""The tables of the queue, and changes to single rows of them."""

import sqlite3

from trivox.service.jobs.states import Entry, State

VERSION = 1

TABLES = """
CREATE TABLE IF NOT EXISTS series (
    key TEXT PRIMARY KEY,
    study TEXT NOT NULL,
    origin TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    rule TEXT NOT NULL DEFAULT '',
    rank INTEGER NOT NULL DEFAULT 1,
    received INTEGER NOT NULL DEFAULT 0,
    expected INTEGER,
    taken INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    lease REAL NOT NULL DEFAULT 0,
    not_before REAL NOT NULL DEFAULT 0,
    child TEXT NOT NULL DEFAULT '',
    since REAL NOT NULL,
    changed REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS steps (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    at REAL NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL
);
"""
NEXT = """
SELECT * FROM series WHERE state IN ({states}) AND not_before <= :now
AND (owner IS NULL OR lease < :now)
ORDER BY rank DESC, since, key LIMIT 1
"""


def row_of(database: sqlite3.Connection, key: str) -> sqlite3.Row | None:
    """The row of a series, None if there is none."""
    row: sqlite3.Row | None = database.execute(
        "SELECT * FROM series WHERE key = ?", (key,)
    ).fetchone()
    return row


def entry_of(row: sqlite3.Row) -> Entry:
    """A row as what the rest of the service knows."""
    names = Entry.__dataclass_fields__
    values = {name: row[name] for name in names}
    return Entry(**{**values, "state": State(row["state"])})


def has_more(row: sqlite3.Row) -> bool:
    """Whether objects came that the prediction has not seen."""
    expected = row["expected"] or 0
    return bool(max(row["received"], expected) > row["taken"])


def move(
    database: sqlite3.Connection, key: str, state: State, reason: str, now: float
) -> None:
    """Put a series into a state and remember that."""
    row = row_of(database, key)
    if row is not None and (row["state"], row["reason"]) == (state, reason):
        return
    database.execute(
        "UPDATE series SET state = ?, reason = ?, changed = ? WHERE key = ?",
        (state, reason, now, key),
    )
    note(database, key, now, state, reason)


def note(
    database: sqlite3.Connection, key: str, now: float, state: State, reason: str
) -> None:
    """Remember that a series came into a state."""
    database.execute(
        "INSERT INTO steps (key, at, state, reason) VALUES (?, ?, ?, ?)",
        (key, now, state, reason),
    )


def ignore(
    database: sqlite3.Connection,
    key: str,
    study: str,
    origin: str,
    reason: str,
    now: float,
) -> None:
    """Note a series that is not worked on, if it is not known yet."""
    added = database.execute(
        "INSERT OR IGNORE INTO series "
        "(key, study, origin, state, reason, since, changed) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (key, study, origin, State.IGNORED, reason, now, now),
    )
    if added.rowcount:
        note(database, key, now, State.IGNORED, reason)
