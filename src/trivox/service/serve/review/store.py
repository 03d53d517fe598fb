"""Reviews in the database of the jobs: every one is kept, the newest counts.

Their files outlive those of the jobs: STATE/reviews/ID/image_0000.nii.gz and a label map
for each review that has one.
"""

import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path

from trivox.service.serve.jobs.folders import Folders
from trivox.service.serve.jobs.records import DATABASE
from trivox.service.serve.jobs.tables import Connections

TABLE = """
CREATE TABLE IF NOT EXISTS reviews (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL,
    client TEXT NOT NULL,
    model TEXT NOT NULL,
    identity TEXT NOT NULL,
    decision TEXT NOT NULL,
    who TEXT NOT NULL,
    note TEXT NOT NULL,
    made REAL NOT NULL,
    labels TEXT,
    sha256 TEXT
)
"""
INDEX = "CREATE INDEX IF NOT EXISTS reviews_by_job ON reviews (client, job)"
NEWEST = "SELECT max(number) FROM reviews WHERE client = ? GROUP BY job"
FOLDER = "reviews"


class Decision(StrEnum):
    """What somebody says of a result. withdrawn: nothing any more; the files are gone."""

    ACCEPT = "accept"
    REJECT = "reject"
    EDIT = "edit"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True)
class NewReview:
    """job: id; client: pseudonym; model, identity: that made the result; who: as they
    call themselves; labels: name of the file of the label map, sha256: its hash.
    """

    job: str
    client: str
    model: str
    identity: str
    decision: Decision
    who: str
    note: str
    labels: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Review(NewReview):
    """A review that was stored. number: grows; made: seconds since 1970."""

    number: int = 0
    made: float = 0.0


COLUMNS = tuple(field.name for field in fields(NewReview))


class ReviewStore:
    """The reviews of a folder."""

    def __init__(
        self, folders: Folders, clock: Callable[[], float] = time.time
    ) -> None:
        self.folder = folders.root / FOLDER
        self.clock = clock
        self._connections = Connections(folders.root / DATABASE)
        with self._connections.changing() as database:
            database.execute(TABLE)
            database.execute(INDEX)

    def of(self, job: str) -> Path:
        """The folder with the files of a job's reviews."""
        return self.folder / job

    def add(self, new: NewReview) -> Review:
        """Store a review behind the others of its job."""
        names = ", ".join(COLUMNS)
        places = ", ".join(f":{name}" for name in COLUMNS)
        values = {name: getattr(new, name) for name in COLUMNS}
        with self._connections.changing() as database:
            added = database.execute(
                f"INSERT INTO reviews ({names}, made) VALUES ({places}, :made)",
                {**values, "made": self.clock()},
            )
            row = database.execute(
                "SELECT * FROM reviews WHERE number = ?", (added.lastrowid,)
            ).fetchone()
        return _review(row)

    def history(self, job: str, client: str) -> list[Review]:
        """All reviews of a job, the newest last."""
        with self._connections.reading() as database:
            rows = database.execute(
                "SELECT * FROM reviews WHERE job = ? AND client = ? ORDER BY number",
                (job, client),
            )
            return [_review(row) for row in rows]

    def newest(self, client: str, limit: int, model: str | None = None) -> list[Review]:
        """The review that counts of each job, the newest first."""
        with self._connections.reading() as database:
            rows = database.execute(
                f"SELECT * FROM reviews WHERE number IN ({NEWEST}) "
                "AND coalesce(model = ?, 1) ORDER BY number DESC LIMIT ?",
                (client, model, limit),
            )
            return [_review(row) for row in rows]

    def clear(self, job: str) -> None:
        """Remove the files of a job's reviews."""
        shutil.rmtree(self.of(job), ignore_errors=True)


def _review(row: sqlite3.Row) -> Review:
    values = {name: row[name] for name in COLUMNS}
    values["decision"] = Decision(values["decision"])
    return Review(**values, number=row["number"], made=row["made"])
