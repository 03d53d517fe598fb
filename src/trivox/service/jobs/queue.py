"""The queue of series on disk: SQLite, so that a killed process loses nothing. It holds
pseudonyms, never the name or the UID of anything.

A series is in one state at a time:

    waiting   -> ready -> running -> sending -> done
       |                    |           |
       +-> ignored          +-> failed <+

Whoever works on a series holds it under a lease, and may change it only as long as the
lease is its own; a lease that nobody renews ends, and another process takes over.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from secrets import token_hex

from trivox.files import runs, this_machine
from trivox.service.database import (
    connected,
    database_in_one_line,
    make_tables,
    one_change,
)
from trivox.service.jobs.states import (
    AGAIN,
    AT_WORK,
    TAKEN_FROM,
    Entry,
    Job,
    LostLeaseError,
    State,
    Work,
)
from trivox.service.jobs.tables import (
    NEXT,
    TABLES,
    VERSION,
    entry_of,
    has_more,
    ignore,
    move,
    note,
    row_of,
)

DATABASE = "queue.sqlite"
LEASE = 60.0
"""Seconds after which work that nobody vouches for is free again."""
TRIES = 3
INTERRUPTIONS = 100
"""How often work may end because the process that did it was killed."""
MORE = "more objects of it came"
RESULT = "trivox"
"""Origin of series that are results."""
OPENED_AGAIN = (State.READY, State.DONE, State.FAILED, State.IGNORED)
"""States that end when more objects come."""


class Queue:
    """The series of one folder; many processes may share it on one machine."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Callable[[], float] = time.time,
        lease: float = LEASE,
    ) -> None:
        self.file = folder / DATABASE
        self.clock = clock
        self.lease = lease
        with self._changing() as database:
            make_tables(database, self.file, TABLES, VERSION)

    # -- what comes in -----------------------------------------------------------------
    def seen(self, key: str, study: str, origin: str, *, rule: str, rank: int) -> bool:
        """Note a series for which a rule may be; False if it was known."""
        now = self.clock()
        with self._changing() as database:
            added = database.execute(
                "INSERT OR IGNORE INTO series "
                "(key, study, origin, state, rule, rank, since, changed) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (key, study, origin, State.WAITING, rule, rank, now, now),
            )
            if not added.rowcount:
                return False
            note(database, key, now, State.WAITING, "")
        return True

    def ignore(self, key: str, study: str, origin: str, reason: str) -> None:
        """Note a series that is none of the service's business, once."""
        with self._changing() as database:
            ignore(database, key, study, origin, reason, self.clock())

    def counted(self, key: str, expected: int, *, stable: float) -> None:
        """Note how many objects the series has where it lies; another number starts the
        time anew after which it is taken to be whole, and opens what was finished.
        """
        with self._changing() as database:
            row = row_of(database, key)
            if row is None or row["expected"] == expected:
                return
            self._wait(database, row, stable, expected=expected)

    def arrived(self, key: str, received: int, *, stable: float) -> None:
        """Note how many objects of the series are here; likewise."""
        with self._changing() as database:
            row = row_of(database, key)
            if row is None or row["received"] == received:
                return
            self._wait(database, row, stable, received=received)

    def _wait(
        self,
        database: sqlite3.Connection,
        row: sqlite3.Row,
        stable: float,
        *,
        received: int | None = None,
        expected: int | None = None,
    ) -> None:
        """New numbers; work that goes on meanwhile is not disturbed."""
        now = self.clock()
        database.execute(
            "UPDATE series SET received = coalesce(?, received), "
            "expected = coalesce(?, expected), not_before = ?, changed = ? "
            "WHERE key = ?",
            (received, expected, now + stable, now, row["key"]),
        )
        if row["origin"] != RESULT and row["state"] in OPENED_AGAIN:
            reason = MORE
            move(database, row["key"], State.WAITING, reason, now)

    # -- work --------------------------------------------------------------------------
    def claim(self, work: Work) -> Job | None:
        """The most urgent series that waits for this work, under a lease; None if none
        does.

        A series whose work was cut off too often fails here.
        """
        while True:
            with self._changing() as database:
                row = self._next(database, work)
                if row is None:
                    return None
                if row["owner"] is not None and row["interruptions"] >= INTERRUPTIONS:
                    reason = "its work was cut off again and again"
                    move(database, row["key"], State.FAILED, reason, self.clock())
                    continue
                return self._leased(database, row, work)

    def _next(self, database: sqlite3.Connection, work: Work) -> sqlite3.Row | None:
        states = ", ".join(f"'{state}'" for state in TAKEN_FROM[work])
        statement = NEXT.format(states=states)
        row: sqlite3.Row | None = database.execute(
            statement, {"now": self.clock()}
        ).fetchone()
        return row

    def _leased(
        self, database: sqlite3.Connection, row: sqlite3.Row, work: Work
    ) -> Job:
        now = self.clock()
        owner = f"{this_machine()}-{os.getpid()}-{token_hex(16)}"
        key = row["key"]
        taken = row["received"] if work is Work.RUN else row["taken"]
        cut_off = int(row["owner"] is not None)
        if row["state"] != AT_WORK[work]:
            move(database, key, AT_WORK[work], "", now)
        database.execute(
            "UPDATE series SET owner = ?, lease = ?, taken = ?, "
            "interruptions = interruptions + ? WHERE key = ?",
            (owner, now + self.lease, taken, cut_off, key),
        )
        held = row_of(database, key)
        assert held is not None
        return Job(entry_of(held), work, owner)

    def free_dead(self) -> None:
        """End the leases of processes of this machine that run no more, so that a
        service that is started again goes on at once.
        """
        with self._changing() as database:
            rows = database.execute(
                "SELECT key, owner FROM series WHERE owner IS NOT NULL"
            ).fetchall()
            for row in rows:
                if _is_dead(row["owner"]):
                    database.execute(
                        "UPDATE series SET lease = 0 WHERE key = ? AND owner = ?",
                        (row["key"], row["owner"]),
                    )

    def renew(self, job: Job, *, child: str | None = None) -> None:
        """Vouch for the work again; raises `LostLeaseError` if it went to another.

        child: the process that predicts.
        """
        with self._changing() as database:
            self._held(database, job)
            database.execute(
                "UPDATE series SET lease = ?, child = coalesce(?, child) WHERE key = ?",
                (self.clock() + self.lease, child, job.key),
            )

    def received(self, job: Job, count: int, rule: str, rank: int) -> None:
        """All objects are here: the series waits for its prediction, or for those of
        which was heard meanwhile.
        """
        with self._ending(job) as database:
            row = self._held(database, job)
            now = self.clock()
            seen = (job.entry.received, job.entry.expected)
            if (row["received"], row["expected"]) != seen:
                move(database, job.key, State.WAITING, MORE, now)
                return
            database.execute(
                "UPDATE series SET received = ?, rule = ?, rank = ?, tries = 0 "
                "WHERE key = ?",
                (count, rule, rank, job.key),
            )
            move(database, job.key, State.READY, "", now)

    def turned_away(self, job: Job, reason: str) -> None:
        """No rule is for the series after all."""
        with self._ending(job) as database:
            move(database, job.key, State.IGNORED, reason, self.clock())

    def predicted(self, job: Job, results: Iterable[str]) -> None:
        """There are results, which wait to be sent. results: pseudonyms of their series,
        which are ignored when they are seen again.
        """
        with self._ending(job) as database:
            now = self.clock()
            for key in results:
                reason = "a result of trivox"
                ignore(database, key, job.entry.study, RESULT, reason, now)
            database.execute(
                "UPDATE series SET tries = 0, child = '', not_before = 0 WHERE key = ?",
                (job.key,),
            )
            move(database, job.key, State.SENDING, "", now)

    def sent(self, job: Job, *, stable: float = 0.0) -> None:
        """The results are where they belong. What came meanwhile is waited for."""
        with self._ending(job) as database:
            now = self.clock()
            row = self._held(database, job)
            if not has_more(row):
                move(database, job.key, State.DONE, "", now)
                return
            database.execute(
                "UPDATE series SET not_before = ? WHERE key = ?",
                (now + stable, job.key),
            )
            move(database, job.key, State.WAITING, MORE, now)

    def again(self, job: Job, reason: str, *, after: float, counts: bool) -> State:
        """The work did not succeed: it is tried again `after` seconds, and fails for
        good the third time that counts. Returns the state that the series is in now.
        """
        with self._ending(job) as database:
            now = self.clock()
            row = self._held(database, job)
            tries = row["tries"] + int(counts)
            state = State.FAILED if tries >= TRIES else AGAIN[job.work]
            database.execute(
                "UPDATE series SET tries = ?, not_before = ? WHERE key = ?",
                (tries, now + after, job.key),
            )
            move(database, job.key, state, reason, now)
        return state

    # -- what is known -----------------------------------------------------------------
    def entries(self) -> list[Entry]:
        """All series, oldest first."""
        with self._reading() as database:
            rows = database.execute("SELECT * FROM series ORDER BY since, key")
            return [entry_of(row) for row in rows]

    def entry(self, key: str) -> Entry | None:
        """A series by its pseudonym."""
        with self._reading() as database:
            row = row_of(database, key)
            return None if row is None else entry_of(row)

    def steps(self, key: str) -> list[tuple[State, str]]:
        """All states that a series was in, with reasons, oldest first."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT state, reason FROM steps WHERE key = ? ORDER BY number", (key,)
            )
            return [(State(row["state"]), row["reason"]) for row in rows]

    def finished_before(self, moment: float) -> list[Entry]:
        """Series whose files nobody needs any more."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT * FROM series WHERE state IN (?, ?) AND changed < ?",
                (State.DONE, State.IGNORED, moment),
            )
            return [entry_of(row) for row in rows]

    # -- the database ------------------------------------------------------------------
    @contextmanager
    def _ending(self, job: Job) -> Iterator[sqlite3.Connection]:
        """A change that ends this process's work on a series; raises `LostLeaseError`
        where it is not its own any more.
        """
        with self._changing() as database:
            self._held(database, job)
            yield database
            database.execute(
                "UPDATE series SET owner = NULL, lease = 0, "
                "interruptions = interruptions * (state = ?) WHERE key = ?",
                (AGAIN[job.work], job.key),
            )

    def _held(self, database: sqlite3.Connection, job: Job) -> sqlite3.Row:
        """The row of a series that this process works on."""
        row = row_of(database, job.key)
        if row is None or row["owner"] != job.owner:
            raise LostLeaseError(f"series {job.key}: another process works on it")
        return row

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with (
            database_in_one_line(self.file, "the queue"),
            closing(connected(self.file)) as database,
        ):
            yield database

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """One change, whole or not at all, on the disk when this ends."""
        with self._reading() as database, one_change(database):
            yield database


def _is_dead(owner: str) -> bool:
    """Whether the process that holds a lease is one of this machine that ended."""
    machine, process, _ = owner.split("-")
    return machine == this_machine() and not runs(int(process))
