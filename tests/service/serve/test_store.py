"""The table of the jobs: whatever happens between two steps, every job ends once."""

import sqlite3
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trivox.errors import ResourceError
from trivox.service.serve.janitor import Janitor
from trivox.service.serve.jobs.folders import Folders
from trivox.service.serve.jobs.states import (
    ENDED,
    Failure,
    LostLeaseError,
    NewJob,
    OtherRequestError,
    QueueFullError,
    ResultFile,
    Stage,
    State,
    TooManyJobsError,
)
from trivox.service.serve.jobs.store import INTERRUPTIONS, TRIES, JobStore, Limits

RESULTS = (ResultFile("case.nii.gz", 3, "0"),)


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def new(number, *, client="anna", key=None, body=""):
    return NewJob(f"{number:032x}", client, "liver", None, body or str(number), 1, key)


@pytest.fixture
def steady():
    return Clock()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, steady, clock):
    return JobStore(tmp_path, clock=clock, steady=steady)


def test_jobs_are_done_in_the_order_in_which_they_came(store):
    for number in range(3):
        store.add(new(number))
    assert [int(store.claim(1).id, 16) for _ in range(3)] == [0, 1, 2]
    assert store.claim(1) is None


def test_only_so_many_jobs_are_open(tmp_path):
    store = JobStore(tmp_path, limits=Limits(queue=3, per_client=2))
    store.add(new(0))
    store.add(new(1))
    with pytest.raises(TooManyJobsError):
        store.add(new(2))
    store.add(new(3, client="bert"))
    with pytest.raises(QueueFullError):
        store.add(new(4, client="carl"))
    claim = store.claim(1)
    store.finish(claim, "results", RESULTS, 1.0)
    store.add(new(5, client="carl"))


def test_a_request_that_is_repeated_is_one_job(store):
    first = store.add(new(0, key="k", body="b"))
    assert store.add(new(1, key="k", body="b")) == first
    with pytest.raises(OtherRequestError):
        store.add(new(2, key="k", body="c"))
    assert store.job(new(1).id) is None


def test_a_lease_that_nobody_renews_ends(store, steady):
    store.add(new(0))
    claim = store.claim(1)
    steady.now += store.lease - 1
    store.renew(claim, Stage.COMPUTING, 0.5)
    steady.now += store.lease - 1
    assert store.claim(2) is None
    steady.now += 2
    other = store.claim(2)
    assert (other.id, other.job.interruptions) == (claim.id, 1)
    with pytest.raises(LostLeaseError):
        store.finish(claim, "results", RESULTS, 1.0)
    with pytest.raises(LostLeaseError):
        store.renew(claim, Stage.COMPUTING, 0.5)


def test_setting_the_clock_ends_no_lease(store, clock):
    store.add(new(0))
    store.claim(1)
    for jump in (1e9, -2e9):
        clock.now += jump
        assert store.claim(2) is None


def test_a_job_that_crashes_every_time_is_set_aside(store, steady):
    store.add(new(0))
    for number in range(TRIES):
        claim = store.claim(1)
        state = store.again(claim, Failure.CRASHED, "it crashed", after=5.0)
        assert state is (State.FAILED if number == TRIES - 1 else State.QUEUED)
        assert store.claim(1) is None
        steady.now += 5.0
    job = store.job(claim.id)
    assert (job.state, job.code, job.tries) == ("failed", "crashed", TRIES)


def test_a_job_whose_worker_is_killed_again_and_again_is_set_aside(store):
    store.add(new(0))
    for _ in range(INTERRUPTIONS):
        assert store.claim(7) is not None
        store.interrupted(7)
    assert store.claim(7) is None
    (job,) = store.jobs("anna", 10)
    assert (job.state, job.code) == ("failed", "interrupted")


def test_only_the_jobs_of_the_dead_worker_are_freed(store):
    store.add(new(0))
    store.add(new(1))
    mine = store.claim(1)
    other = store.claim(2)
    assert [job.id for job in store.interrupted(1)] == [mine.id]
    assert store.is_held(other)
    assert not store.is_held(mine)


def test_a_cancelled_job_cannot_be_finished(store):
    store.add(new(0))
    claim = store.claim(1)
    assert store.cancel(claim.id).state is State.CANCELLED
    with pytest.raises(LostLeaseError):
        store.finish(claim, "results", RESULTS, 1.0)
    assert store.cancel(claim.id).state is State.CANCELLED
    assert store.claim(1) is None


def test_what_a_job_takes_is_the_median_of_the_last_ones(store):
    assert store.expected_seconds("liver") is None
    for number, seconds in enumerate((1.0, 9.0, 2.0)):
        store.add(new(number))
        store.finish(store.claim(1), "results", RESULTS, seconds)
    assert store.expected_seconds("liver") == 2.0


def test_a_damaged_table_is_said_in_one_line(tmp_path):
    (tmp_path / "jobs.sqlite").write_bytes(b"no table" * 1000)
    with pytest.raises(
        ResourceError, match=r"jobs\.sqlite: .* start with an empty folder"
    ):
        JobStore(tmp_path)


PRAGMAS = """
import sys
from pathlib import Path
from trivox.service.serve.jobs.store import JobStore
store = JobStore(Path(sys.argv[1]))
with store._connections.reading() as database:
    for name in ("synchronous", "journal_mode"):
        print(database.execute(f"PRAGMA {name}").fetchone()[0])
"""


def test_changes_are_on_the_disk_when_they_are_made(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PRAGMAS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["2", "wal"]


# -- age -------------------------------------------------------------------------------
def aged(store, folders, clock, number=0):
    """A job that is done, with its files."""
    store.add(new(number))
    claim = store.claim(1)
    (folders.of(claim.id) / "results").mkdir(parents=True)
    store.finish(claim, "results", RESULTS, 1.0)
    return claim.id


@pytest.fixture
def janitor(tmp_path, store, clock, steady):
    folders = Folders(tmp_path)
    folders.make()
    janitor = Janitor(store, folders, keep=100.0, clock=clock, steady=steady, pause=1e6)
    janitor.start()
    yield janitor
    janitor.stop()


def test_results_are_kept_for_so_long(store, janitor, clock, steady):
    name = aged(store, janitor.folders, clock)
    for moment in (clock, steady):
        moment.now += 99
    janitor.round()
    assert janitor.folders.of(name).exists()
    for moment in (clock, steady):
        moment.now += 2
    janitor.round()
    assert not janitor.folders.of(name).exists()
    job = store.job(name)
    assert (job.state, job.expired, job.results) == ("done", True, ())


@pytest.mark.parametrize("jump", [1e8, -1e8])
def test_nothing_expires_because_the_clock_is_set(store, janitor, clock, steady, jump):
    name = aged(store, janitor.folders, clock)
    clock.now += jump
    janitor.round()
    assert janitor.folders.of(name).exists()
    for moment in (clock, steady):
        moment.now += 101
    janitor.round()
    assert not janitor.folders.of(name).exists()


def test_folders_that_no_job_knows_of_go(store, janitor):
    left = janitor.folders.of("f" * 32)
    left.mkdir()
    janitor.folders.sweep(store.known_ids())
    assert left.exists()
    janitor.folders.sweep(store.known_ids(), young=0.0)
    assert not left.exists()


# -- kills -----------------------------------------------------------------------------
class KilledError(Exception):
    """Stands for a process that is no more."""


class Fragile:
    """A connection whose process dies at a step."""

    def __init__(self, database, steps):
        self.database = database
        self.steps = steps

    def execute(self, statement, *values):
        if statement != "ROLLBACK":
            self.steps[0] -= 1
            if self.steps[0] < 0:
                raise KilledError
        return self.database.execute(statement, *values)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("add", "claim", "finish", "fail", "again", "cancel", "renew", "restart")
        ),
        st.integers(0, 3),
        st.integers(0, 12),
    ),
    max_size=40,
)


class History:
    """Jobs under steps that die in the middle, and what must hold all the while."""

    def __init__(self, folder):
        self.steady = Clock()
        self.store = JobStore(folder, steady=self.steady)
        self.claims = []
        self.ends = {}

    def step(self, what, number, life):
        """Do a step in a process that may die after `life` statements."""
        database = self.store._connections.here
        self.store._connections._local.database = Fragile(database, [life])
        try:
            getattr(self, what)(number)
        except (KilledError, LostLeaseError):
            pass
        finally:
            if database.in_transaction:
                database.execute("ROLLBACK")
            self.store._connections._local.database = database

    def add(self, number):
        if self.store.job(new(number).id) is None:
            self.store.add(new(number))

    def claim(self, number):
        claim = self.store.claim(number)
        if claim is not None:
            self.claims.append(claim)

    def _with_a_claim(self, number, change):
        if self.claims:
            change(self.claims[number % len(self.claims)])

    def finish(self, number):
        self._with_a_claim(
            number, lambda claim: self.store.finish(claim, claim.lease, RESULTS, 1.0)
        )

    def fail(self, number):
        self._with_a_claim(
            number, lambda claim: self.store.fail(claim, Failure.UNUSABLE_INPUT, "")
        )

    def again(self, number):
        self._with_a_claim(
            number,
            lambda claim: self.store.again(claim, Failure.CRASHED, "", after=0.0),
        )

    def renew(self, number):
        self._with_a_claim(
            number, lambda claim: self.store.renew(claim, Stage.COMPUTING, 0.5)
        )

    def cancel(self, number):
        if self.store.job(new(number).id) is not None:
            self.store.cancel(new(number).id)

    def restart(self, number):
        self.store.interrupted()

    def check(self):
        """A job that has ended stays as it is, and is counted once."""
        for job in self.store.jobs("anna", 100):
            if job.state in ENDED:
                end = replace(job, change=0)
                assert self.ends.setdefault(job.id, end) == end
                assert (job.state is State.DONE) == bool(job.results)
                assert (job.state is State.FAILED) == (job.code is not None)
            assert job.tries <= TRIES
        ended = sum(number for _, _, number, _ in self.store.totals())
        assert ended == len(self.ends)


@settings(max_examples=60)
@given(STEPS)
def test_every_job_ends_once_whenever_processes_die(tmp_path_factory, steps):
    history = History(tmp_path_factory.mktemp("history"))
    for what, number, life in steps:
        history.step(what, number, life)
        history.check()
    history.restart(0)
    history.claims = []
    while (claim := history.store.claim(1)) is not None:
        history.store.finish(claim, claim.lease, RESULTS, 1.0)
        history.check()
    assert all(job.has_ended for job in history.store.jobs("anna", 100))


def test_a_full_disk_is_said_and_leaves_the_table_as_it_was(tmp_path):
    store = JobStore(tmp_path)
    store.add(new(0))
    with store._connections.reading() as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
        database.execute(f"PRAGMA max_page_count = {pages}")
    large = replace(new(1), model="x" * 100_000)
    with pytest.raises(ResourceError, match="full"):
        store.add(large)
    assert [job.id for job in store.jobs("anna", 9)] == [new(0).id]
    assert store.claim(1).id == new(0).id
    assert (
        sqlite3.connect(store.file).execute("PRAGMA integrity_check").fetchone()[0]
        == "ok"
    )
