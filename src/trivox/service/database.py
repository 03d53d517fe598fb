"""SQLite as the service uses it: a killed process and a power cut lose nothing."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from trivox.errors import ResourceError

BUSY_SECONDS = 30.0
SYNCHRONOUS = "FULL"
"""A change that was made survives a power cut."""


@contextmanager
def database_in_one_line(file: Path, what: str) -> Iterator[None]:
    """What SQLite says of the file becomes a `ResourceError`. what: it holds."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise ResourceError(
            f"{file}: {what} cannot be read or written ({error}); check the disk and "
            "its rights, or start with an empty folder"
        ) from error


def connected(file: Path) -> sqlite3.Connection:
    """A connection whose changes are on the disk when they are committed."""
    database = sqlite3.connect(file, timeout=BUSY_SECONDS, isolation_level=None)
    database.row_factory = sqlite3.Row
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
    return database


@contextmanager
def one_change(database: sqlite3.Connection) -> Iterator[None]:
    """Whole or not at all, on the disk when this ends; nobody else writes meanwhile."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # a full disk has rolled back already
            database.execute("ROLLBACK")
        raise


def make_tables(
    database: sqlite3.Connection, file: Path, tables: str, version: int
) -> None:
    """Make the tables that are missing; raises `ResourceError` for those of another
    version.
    """
    there = database.execute("PRAGMA user_version").fetchone()[0]
    if there not in (0, version):
        raise ResourceError(
            f"{file}: was written by another version of trivox; name another folder"
        )
    for statement in tables.split(";"):
        database.execute(statement)
    database.execute(f"PRAGMA user_version = {version}")
