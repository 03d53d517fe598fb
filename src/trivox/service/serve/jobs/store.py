"""The jobs of one folder. Every change is one transaction, so that a process may be
killed between any two steps.

Whoever works on a job holds it under a lease, and may change it only as long as the lease
is its own. Leases run by the clock that counts since the machine was started, which
nobody sets.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import Any

from trivox.service.database import make_tables
from trivox.service.serve.jobs.records import JobRecords
from trivox.service.serve.jobs.states import (
    ENDED,
    NO_FORMAT,
    OPEN,
    Claim,
    Failure,
    Job,
    LostLeaseError,
    NewJob,
    OtherRequestError,
    QueueFullError,
    ResultFile,
    Stage,
    State,
    TooManyJobsError,
)
from trivox.service.serve.jobs.tables import (
    TABLES,
    VERSION,
    as_text,
    count_ended,
    job_of,
    row_of,
    update,
)

LEASE = 15.0
"""Seconds after which a job that nobody vouches for is free again."""
TRIES = 3
INTERRUPTIONS = 20
"""How often the process that looks after a job may be killed before the job is taken to
be the reason.
"""
FREE: dict[str, Any] = {
    "lease": None,
    "lease_ends": 0.0,
    "worker": None,
    "child": None,
    "child_started": None,
}
"""Columns of a job that nobody works on."""


@dataclass(frozen=True)
class Limits:
    """How many jobs may be open at a time: in all, and of one client."""

    queue: int = 256
    per_client: int = 128


class JobStore(JobRecords):
    """The jobs of a folder; many processes may share it on one machine."""

    def __init__(
        self,
        folder: Path,
        *,
        limits: Limits = Limits(),
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        lease: float = LEASE,
    ) -> None:
        super().__init__(folder)
        self.limits = limits
        self.clock = clock
        self.steady = steady
        self.lease = lease
        with self._connections.changing() as database:
            make_tables(database, self.file, TABLES, VERSION)

    # -- clients -----------------------------------------------------------------------
    def require_room(self, client: str) -> None:
        """Raise `QueueFullError` or `TooManyJobsError` where no job would be taken."""
        with self._connections.reading() as database:
            self._require_room(database, client)

    def _require_room(self, database: sqlite3.Connection, client: str) -> None:
        counts = "SELECT count(*), count(*) FILTER (WHERE client = ?) FROM jobs "
        waiting, mine = database.execute(
            counts + "WHERE state IN (?, ?)", (client, *OPEN)
        ).fetchone()
        if mine >= self.limits.per_client:
            raise TooManyJobsError(
                f"{mine} jobs of this client are open; wait until some have ended"
            )
        if waiting >= self.limits.queue:
            raise QueueFullError(f"{waiting} jobs are open; try again later")

    def add(self, new: NewJob) -> Job:
        """Queue a job; one of the same key that was queued before is returned instead.

        Raises `OtherRequestError` if that key came with another body.
        """
        with self._connections.changing() as database:
            earlier = self._of_key(database, new)
            if earlier is not None:
                return earlier
            self._require_room(database, new.client)
            database.execute(
                "INSERT INTO jobs (id, client, model, format, series, key, body, size, "
                "state, stage, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    new.id,
                    new.client,
                    new.model,
                    new.format,
                    new.series,
                    new.key,
                    new.body,
                    new.size,
                    State.QUEUED,
                    Stage.QUEUED,
                    self.clock(),
                ),
            )
            job = self._job(database, new.id)
            if new.unreadable:
                self._fail(database, job, Failure.UNKNOWN_FORMAT, NO_FORMAT)
            return self._job(database, new.id)

    def _of_key(self, database: sqlite3.Connection, new: NewJob) -> Job | None:
        if new.key is None:
            return None
        row = database.execute(
            "SELECT * FROM jobs WHERE key = ?", (new.key,)
        ).fetchone()
        if row is None:
            return None
        if row["body"] != new.body:
            raise OtherRequestError(
                "this Idempotency-Key came with another request before; choose a new one"
            )
        return job_of(row)

    def cancel(self, id: str) -> Job:
        """End an open job at once; what ended before stays as it is. The files of one
        that is cancelled are no more.
        """
        with self._connections.changing() as database:
            job = self._job(database, id)
            if not job.has_ended:
                update(database, id, expired=1)
                self._end(database, job, State.CANCELLED)
            return self._job(database, id)

    def remove(self, id: str) -> None:
        """Forget a job that has ended."""
        with self._connections.changing() as database:
            database.execute(
                "DELETE FROM jobs WHERE id = ? AND state IN (?, ?, ?)", (id, *ENDED)
            )

    # -- work --------------------------------------------------------------------------
    def claim(self, worker: int) -> Claim | None:
        """The job that waits longest, under a lease; None if none waits.

        worker: number of the process that asks. A job whose process was killed too often
        fails here.
        """
        if not self._is_work():
            return None
        with self._connections.changing() as database:
            self._free_forgotten(database)
            row = self._next(database)
            return None if row is None else self._leased(database, job_of(row), worker)

    def _is_work(self) -> bool:
        """Whether a job may wait, without keeping others from writing."""
        with self._connections.reading() as database:
            row = database.execute(
                "SELECT 1 FROM jobs WHERE state = ? AND not_before <= ? "
                "OR state = ? AND lease_ends < ? LIMIT 1",
                (State.QUEUED, self.steady(), State.RUNNING, self.steady()),
            )
            return row.fetchone() is not None

    def _next(self, database: sqlite3.Connection) -> sqlite3.Row | None:
        row: sqlite3.Row | None = database.execute(
            "SELECT * FROM jobs WHERE state = ? AND not_before <= ? "
            "ORDER BY number LIMIT 1",
            (State.QUEUED, self.steady()),
        ).fetchone()
        return row

    def _leased(self, database: sqlite3.Connection, job: Job, worker: int) -> Claim:
        lease = token_hex(16)
        update(
            database,
            job.id,
            state=State.RUNNING,
            stage=Stage.READING,
            progress=0.0,
            started=self.clock(),
            lease=lease,
            lease_ends=self.steady() + self.lease,
            worker=worker,
        )
        return Claim(self._job(database, job.id), lease)

    def works_as(self, claim: Claim, child: int, started: float) -> None:
        """Note the process that computes a job; raises `LostLeaseError`."""
        with self._holding(claim) as database:
            update(database, claim.id, child=child, child_started=started)

    def renew(self, claim: Claim, stage: Stage, progress: float) -> None:
        """Vouch for a job and say how far it is; raises `LostLeaseError`."""
        with self._holding(claim) as database:
            update(
                database,
                claim.id,
                stage=stage,
                progress=progress,
                lease_ends=self.steady() + self.lease,
            )

    def is_held(self, claim: Claim) -> bool:
        """Whether the lease is still this process's."""
        with self._connections.reading() as database:
            row = row_of(database, claim.id)
            return row is not None and row["lease"] == claim.lease

    def finish(
        self,
        claim: Claim,
        folder: str,
        results: tuple[ResultFile, ...],
        seconds: float,
    ) -> None:
        """The results lie in `folder`; raises `LostLeaseError`."""
        with self._holding(claim) as database:
            text = as_text(results)
            update(database, claim.id, folder=folder, results=text, progress=1.0)
            self._end(database, claim.job, State.DONE, seconds=seconds)

    def fail(self, claim: Claim, code: Failure, detail: str) -> None:
        """The job cannot be done; raises `LostLeaseError`."""
        with self._holding(claim) as database:
            self._fail(database, claim.job, code, detail)

    def again(self, claim: Claim, code: Failure, detail: str, *, after: float) -> State:
        """The try did not succeed: there is another one `after` seconds, and after the
        third the job fails. Returns the state of the job; raises `LostLeaseError`.
        """
        with self._holding(claim) as database:
            job = self._job(database, claim.id)
            update(database, job.id, tries=job.tries + 1)
            if job.tries + 1 >= TRIES:
                self._fail(database, job, code, detail)
                return State.FAILED
            self._queue(database, job.id, not_before=self.steady() + after)
            return State.QUEUED

    def give_back(self, claim: Claim) -> None:
        """Somebody else may do the job; nothing is counted."""
        with self._holding(claim) as database:
            self._queue(database, claim.id)

    def interrupted(self, worker: int | None = None) -> list[Job]:
        """Free the jobs that a process which is no more worked on, of all processes if
        None; returns them as they were.
        """
        with self._connections.changing() as database:
            rows = database.execute(
                "SELECT * FROM jobs WHERE state = ? AND coalesce(worker = ?, 1)",
                (State.RUNNING, worker),
            ).fetchall()
            jobs = [job_of(row) for row in rows]
            for job in jobs:
                self._interrupt(database, job)
            return jobs

    def _free_forgotten(self, database: sqlite3.Connection) -> None:
        """Jobs that nobody vouched for."""
        rows = database.execute(
            "SELECT * FROM jobs WHERE state = ? AND lease_ends < ?",
            (State.RUNNING, self.steady()),
        ).fetchall()
        for row in rows:
            self._interrupt(database, job_of(row))

    def _interrupt(self, database: sqlite3.Connection, job: Job) -> None:
        update(database, job.id, interruptions=job.interruptions + 1)
        if job.interruptions + 1 >= INTERRUPTIONS:
            detail = f"the work was cut off {INTERRUPTIONS} times"
            self._fail(database, job, Failure.INTERRUPTED, detail)
        else:
            self._queue(database, job.id)

    # -- age ---------------------------------------------------------------------------
    def expire(self, id: str) -> None:
        """Note that the files of a job that ended are no more."""
        with self._connections.changing() as database:
            update(database, id, expired=1, results="[]", folder=None, key=None)

    def forget(self, moment: float) -> None:
        """Remove all that is known of jobs that ended before and have no files."""
        with self._connections.changing() as database:
            database.execute(
                "DELETE FROM jobs WHERE expired AND ended < ? AND state IN (?, ?, ?)",
                (moment, *ENDED),
            )

    def shift(self, seconds: float) -> None:
        """The clock was set: what ended stays as old as it is."""
        with self._connections.changing() as database:
            database.execute("UPDATE jobs SET ended = ended + ?", (seconds,))

    # -- steps of changes --------------------------------------------------------------
    def _job(self, database: sqlite3.Connection, id: str) -> Job:
        row = row_of(database, id)
        assert row is not None
        return job_of(row)

    def _queue(
        self, database: sqlite3.Connection, id: str, *, not_before: float = 0.0
    ) -> None:
        waiting = {"state": State.QUEUED, "stage": Stage.QUEUED, "progress": 0.0}
        update(database, id, **waiting, **FREE, not_before=not_before)

    def _fail(
        self, database: sqlite3.Connection, job: Job, code: Failure, detail: str
    ) -> None:
        update(database, job.id, code=code, detail=detail)
        self._end(database, job, State.FAILED)

    def _end(
        self,
        database: sqlite3.Connection,
        job: Job,
        state: State,
        *,
        seconds: float | None = None,
    ) -> None:
        now = self.clock()
        update(
            database,
            job.id,
            state=state,
            stage=Stage.ENDED,
            ended=now,
            seconds=seconds,
            **FREE,
        )
        count_ended(database, job.model, state, seconds or 0.0)

    @contextmanager
    def _holding(self, claim: Claim) -> Iterator[sqlite3.Connection]:
        """A change by the process that works on a job."""
        with self._connections.changing() as database:
            row = row_of(database, claim.id)
            if row is None or row["lease"] != claim.lease:
                raise LostLeaseError(f"job {claim.id}: is not this process's any more")
            yield database
