"""The table of the jobs in SQLite: a change that was made survives a power cut."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from trivox.service.database import connected, database_in_one_line, one_change
from trivox.service.serve.jobs.states import Job, ResultFile, Stage, State

VERSION = 1

TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    client TEXT NOT NULL,
    model TEXT NOT NULL,
    format TEXT,
    series TEXT,
    key TEXT UNIQUE,
    body TEXT NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL,
    stage TEXT NOT NULL,
    progress REAL NOT NULL DEFAULT 0,
    code TEXT,
    detail TEXT,
    created REAL NOT NULL,
    started REAL,
    ended REAL,
    seconds REAL,
    tries INTEGER NOT NULL DEFAULT 0,
    interruptions INTEGER NOT NULL DEFAULT 0,
    folder TEXT,
    results TEXT NOT NULL DEFAULT '[]',
    expired INTEGER NOT NULL DEFAULT 0,
    change INTEGER NOT NULL DEFAULT 0,
    lease TEXT,
    lease_ends REAL NOT NULL DEFAULT 0,
    worker INTEGER,
    child INTEGER,
    child_started REAL,
    not_before REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, number);
CREATE INDEX IF NOT EXISTS jobs_by_client ON jobs (client, state);
CREATE TABLE IF NOT EXISTS totals (
    model TEXT NOT NULL,
    state TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    seconds REAL NOT NULL,
    PRIMARY KEY (model, state)
);
"""
COLUMNS = tuple(field.name for field in fields(Job))


class Connections:
    """A connection for each thread that asks."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._local = threading.local()

    @property
    def here(self) -> sqlite3.Connection:
        """That of this thread."""
        connection: sqlite3.Connection | None = getattr(self._local, "database", None)
        if connection is None:
            connection = connected(self.file)
            self._local.database = connection
        return connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for a look."""
        with database_in_one_line(self.file, "the jobs"):
            yield self.here

    @contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """One change, whole or not at all, on the disk when this ends."""
        with self.reading() as database, one_change(database):
            yield database


def job_of(row: sqlite3.Row) -> Job:
    """A row as what the rest of the service knows."""
    values = {name: row[name] for name in COLUMNS}
    listed = json.loads(values.pop("results"))
    values["state"] = State(values["state"])
    values["stage"] = Stage(values["stage"])
    values["expired"] = bool(values["expired"])
    return Job(**values, results=tuple(ResultFile(**each) for each in listed))


def row_of(database: sqlite3.Connection, id: str) -> sqlite3.Row | None:
    """The row of a job, None if there is none."""
    row: sqlite3.Row | None = database.execute(
        "SELECT * FROM jobs WHERE id = ?", (id,)
    ).fetchone()
    return row


def as_text(results: tuple[ResultFile, ...]) -> str:
    """Results as the table has them."""
    return json.dumps([asdict(each) for each in results])


def update(database: sqlite3.Connection, id: str, **values: Any) -> None:
    """Change a job; every change counts."""
    names = ", ".join(f"{name} = :{name}" for name in values)
    database.execute(
        f"UPDATE jobs SET {names}, change = change + 1 WHERE id = :id",
        {**values, "id": id},
    )


def count_ended(
    database: sqlite3.Connection, model: str, state: State, seconds: float
) -> None:
    """Add a job that ended to the totals, which outlive the jobs."""
    database.execute(
        "INSERT INTO totals (model, state, jobs, seconds) VALUES (?, ?, 1, ?) "
        "ON CONFLICT (model, state) DO UPDATE SET jobs = jobs + 1, "
        "seconds = seconds + excluded.seconds",
        (model, state, seconds),
    )
