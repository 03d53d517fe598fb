"""What is known of the jobs of a folder."""

from pathlib import Path

from trivox.service.serve.jobs.states import ENDED, OPEN, Job, State
from trivox.service.serve.jobs.tables import Connections, job_of, row_of

DATABASE = "jobs.sqlite"
RECENT = 15
"""Jobs by which is judged what the next one takes."""


class JobRecords:
    """The jobs of a folder, to look at."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / DATABASE
        self._connections = Connections(self.file)

    def job(self, id: str) -> Job | None:
        """A job, None if there is none of that id."""
        with self._connections.reading() as database:
            row = row_of(database, id)
            return None if row is None else job_of(row)

    def jobs(self, client: str, limit: int) -> list[Job]:
        """The newest jobs of a client."""
        with self._connections.reading() as database:
            rows = database.execute(
                "SELECT * FROM jobs WHERE client = ? ORDER BY number DESC LIMIT ?",
                (client, limit),
            )
            return [job_of(row) for row in rows]

    def is_known(self, key: str) -> bool:
        """Whether a job with this idempotency key was queued."""
        with self._connections.reading() as database:
            row = database.execute("SELECT 1 FROM jobs WHERE key = ?", (key,))
            return row.fetchone() is not None

    def expected_seconds(self, model: str) -> float | None:
        """What a job of a model takes: the median of the last ones, None before any."""
        with self._connections.reading() as database:
            rows = database.execute(
                "SELECT seconds FROM jobs WHERE model = ? AND state = ? AND seconds > 0 "
                "ORDER BY number DESC LIMIT ?",
                (model, State.DONE, RECENT),
            )
            seconds = sorted(row["seconds"] for row in rows)
        return seconds[len(seconds) // 2] if seconds else None

    def ahead(self, id: str) -> int:
        """How many open jobs were queued before a job."""
        with self._connections.reading() as database:
            query = (
                "SELECT count(*) FROM jobs WHERE state IN (?, ?) AND number < "
                "(SELECT number FROM jobs WHERE id = ?)"
            )
            return int(database.execute(query, (*OPEN, id)).fetchone()[0])

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        with self._connections.reading() as database:
            rows = database.execute("SELECT state, count(*) FROM jobs GROUP BY state")
            counted = {State(state): number for state, number in rows}
        return {state: counted.get(state, 0) for state in State}

    def totals(self) -> list[tuple[str, str, int, float]]:
        """Model, state, jobs that ended so and the seconds they took, since the folder
        was made.
        """
        with self._connections.reading() as database:
            rows = database.execute("SELECT model, state, jobs, seconds FROM totals")
            return [tuple(row) for row in rows]

    def known_ids(self) -> set[str]:
        """Ids of all jobs whose files are there."""
        with self._connections.reading() as database:
            rows = database.execute("SELECT id FROM jobs WHERE NOT expired")
            return {row["id"] for row in rows}

    def ended_before(self, moment: float) -> list[str]:
        """Ids of jobs whose results nobody may fetch any more."""
        with self._connections.reading() as database:
            rows = database.execute(
                "SELECT id FROM jobs WHERE state IN (?, ?, ?) AND ended < ? "
                "AND NOT expired",
                (*ENDED, moment),
            )
            return [row["id"] for row in rows]
