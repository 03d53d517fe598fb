"""The queue loses nothing and does nothing twice, whenever its process is killed."""

import sqlite3
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trivox.errors import ResourceError
from trivox.service.jobs import queue as queue_module
from trivox.service.jobs.queue import Queue
from trivox.service.jobs.states import FINAL, LostLeaseError, State, Work
from trivox.service.jobs.work import beating

LEASE = 60.0
ALLOWED = {
    State.WAITING: {State.READY, State.IGNORED, State.WAITING, State.FAILED},
    State.READY: {State.RUNNING, State.WAITING},
    State.RUNNING: {State.SENDING, State.READY, State.FAILED},
    State.SENDING: {State.DONE, State.SENDING, State.FAILED, State.WAITING},
    State.DONE: {State.WAITING},
    State.FAILED: {State.WAITING},
    State.IGNORED: {State.WAITING},
}


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def queue(tmp_path, clock):
    return Queue(tmp_path, clock=clock, lease=LEASE)


def add(queue, key="a", rank=1, received=3):
    queue.seen(key, "study", "archive", rule="r", rank=rank)
    job = queue.claim(Work.RECEIVE)
    queue.received(job, received, "r", rank)


def test_a_series_goes_its_way_and_every_step_is_remembered(queue):
    add(queue)
    queue.predicted(queue.claim(Work.RUN), ["result"])
    queue.sent(queue.claim(Work.SEND))
    states = [state for state, _ in queue.steps("a")]
    assert states == ["waiting", "ready", "running", "sending", "done"]
    assert queue.entry("result").state is State.IGNORED
    assert not any(queue.claim(work) for work in Work)


def test_urgent_series_come_first_and_older_ones_before_newer(queue, clock):
    for key, rank in (("low", 0), ("old", 1), ("new", 1), ("urgent", 2)):
        clock.now += 1
        add(queue, key, rank)
    order = [queue.claim(Work.RUN).key for _ in range(4)]
    assert order == ["urgent", "old", "new", "low"]


def test_the_third_try_that_counts_is_the_last(queue, clock):
    add(queue)
    for expected in (State.READY, State.READY, State.FAILED):
        job = queue.claim(Work.RUN)
        assert queue.again(job, "no", after=5, counts=True) is expected
        assert queue.claim(Work.RUN) is None  # not before its pause is over
        clock.now += 5
    assert queue.claim(Work.RUN) is None
    assert queue.entry("a").reason == "no"


def test_what_is_nobodys_fault_is_tried_without_end(queue, clock):
    add(queue)
    for _ in range(10):
        queue.again(queue.claim(Work.RUN), "out of reach", after=0, counts=False)
    assert queue.entry("a").state is State.READY


def test_work_that_is_cut_off_without_end_fails(queue, clock):
    add(queue)
    for _ in range(101):
        assert queue.claim(Work.RUN)
        clock.now += LEASE + 1
    assert queue.claim(Work.RUN) is None
    assert queue.entry("a").state is State.FAILED


def test_work_that_came_to_an_end_was_cut_off_never(queue, clock):
    add(queue)
    queue.claim(Work.RUN)
    clock.now += LEASE + 1
    queue.predicted(queue.claim(Work.RUN), [])
    assert interruptions(queue) == 0


def interruptions(queue):
    with sqlite3.connect(queue.file) as database:
        (count,) = database.execute("SELECT interruptions FROM series").fetchone()
        return count


def test_results_that_are_sent_here_are_not_worked_on(queue):
    add(queue)
    queue.predicted(queue.claim(Work.RUN), ["result"])
    queue.arrived("result", 1, stable=0)
    queue.counted("result", 2, stable=0)
    assert queue.entry("result").state is State.IGNORED


def test_who_lost_a_lease_is_told(tmp_path):
    queue = Queue(tmp_path, lease=0.04)
    add(queue)
    with beating(queue, queue.claim(Work.RUN)) as heart:
        heart.require()
        with sqlite3.connect(queue.file) as database:
            database.execute("UPDATE series SET owner = 'another'")
        assert heart.lost.wait(30)
        with pytest.raises(LostLeaseError):
            heart.require()


@pytest.mark.parametrize("end", ["renew", "again", "predicted"])
def test_nobody_ends_work_that_another_took_over(queue, clock, end):
    add(queue)
    slow = queue.claim(Work.RUN)
    clock.now += LEASE + 1
    fast = queue.claim(Work.RUN)
    ends = {
        "renew": lambda: queue.renew(slow),
        "again": lambda: queue.again(slow, "no", after=0, counts=True),
        "predicted": lambda: queue.predicted(slow, []),
    }
    with pytest.raises(LostLeaseError):
        ends[end]()
    queue.predicted(fast, [])


def test_a_lease_that_is_renewed_is_not_taken_over(queue, clock):
    add(queue)
    job = queue.claim(Work.RUN)
    for _ in range(5):
        clock.now += LEASE - 1
        queue.renew(job)
    assert queue.claim(Work.RUN) is None


def test_work_of_a_process_that_ended_is_free_at_once(
    queue, monkeypatch, dead_process, living_process
):
    add(queue)
    number = living_process
    monkeypatch.setattr(queue_module.os, "getpid", lambda: number)
    first = queue.claim(Work.RUN)
    queue.free_dead()
    assert queue.claim(Work.RUN) is None
    queue.again(first, "", after=0, counts=False)
    number = dead_process
    assert queue.claim(Work.RUN)
    queue.free_dead()
    assert queue.claim(Work.RUN)


@pytest.mark.parametrize("work", [Work.RUN, Work.SEND])
def test_objects_that_come_late_open_a_series_again(queue, clock, work):
    add(queue)
    job = queue.claim(Work.RUN)
    if work is Work.SEND:
        queue.predicted(job, [])
        job = queue.claim(Work.SEND)
    queue.arrived("a", 4, stable=10)
    if work is Work.RUN:
        queue.predicted(job, [])
        job = queue.claim(Work.SEND)
    clock.now += 11
    queue.sent(job)
    assert queue.entry("a").state is State.WAITING
    assert "more" in queue.entry("a").reason


def test_what_comes_while_a_series_is_counted_is_not_overlooked(queue, clock):
    queue.seen("a", "study", "node", rule="r", rank=1)
    queue.arrived("a", 3, stable=0)
    job = queue.claim(Work.RECEIVE)
    queue.arrived("a", 4, stable=10)
    queue.received(job, 3, "r", 1)
    assert queue.entry("a").state is State.WAITING
    assert queue.claim(Work.RECEIVE) is None
    clock.now += 10
    assert queue.claim(Work.RECEIVE).entry.received == 4


def test_another_number_opens_what_was_done_and_the_same_does_not(queue):
    add(queue, received=3)
    queue.counted("a", 3, stable=0)
    job = queue.claim(Work.RECEIVE)
    queue.received(job, 3, "r", 1)
    queue.predicted(queue.claim(Work.RUN), [])
    queue.sent(queue.claim(Work.SEND))
    queue.counted("a", 3, stable=0)
    queue.arrived("a", 3, stable=0)
    assert queue.entry("a").state is State.DONE
    queue.counted("a", 4, stable=0)
    assert queue.entry("a").state is State.WAITING


def test_a_damaged_queue_is_said_in_one_line(tmp_path):
    (tmp_path / "queue.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(ResourceError, match=r"queue.sqlite: the queue cannot be read"):
        Queue(tmp_path)


def test_a_change_that_sqlite_rolled_back_is_said_by_its_own_reason(queue):
    """As it does by itself where a disk is full."""
    add(queue, "a")
    refusal = "SELECT RAISE(ROLLBACK, 'database or disk is full')"
    with sqlite3.connect(queue.file) as database:
        database.execute(
            f"CREATE TRIGGER full AFTER INSERT ON steps BEGIN {refusal}; END"
        )
    with pytest.raises(ResourceError, match="disk is full"):
        queue.seen("b", "study", "archive", rule="r", rank=1)
    with sqlite3.connect(queue.file) as database:
        database.execute("DROP TRIGGER full")
    assert [entry.key for entry in queue.entries()] == ["a"]
    assert queue.claim(Work.RUN).key == "a"


def test_a_queue_of_another_version_is_left_alone(tmp_path):
    with sqlite3.connect(tmp_path / "queue.sqlite") as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(ResourceError, match="another version"):
        Queue(tmp_path)


class Service(RuleBasedStateMachine):
    """Two watchers on one queue; each may be killed between any two steps. Archives
    keep what they were sent under its UID, which follows from its source.
    """

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.queue = self.opened()
        self.series = {}
        self.archive = {}
        self.jobs = []
        self.predicted = {}

    def opened(self):
        return Queue(Path(self.folder.name), clock=self.clock, lease=LEASE)

    @rule(number=st.integers(0, 3), rank=st.integers(0, 2))
    def sees(self, number, rank):
        key = f"s{number}"
        if self.queue.seen(key, "study", "archive", rule="r", rank=rank):
            self.series[key] = 1

    @precondition(lambda self: self.series)
    @rule(data=st.data())
    def more_comes(self, data):
        key = data.draw(st.sampled_from(sorted(self.series)))
        self.series[key] += 1
        self.queue.arrived(key, self.series[key], stable=5)

    @precondition(lambda self: len(self.jobs) < 2)
    @rule(work=st.sampled_from(Work))
    def claims(self, work):
        job = self.queue.claim(work)
        if job is not None:
            self.jobs.append(job)

    @precondition(lambda self: self.jobs)
    @rule(number=st.integers(0, 1), good=st.booleans())
    def ends(self, number, good):
        job = self.jobs.pop(min(number, len(self.jobs) - 1))
        try:
            self.queue.renew(job)
        except LostLeaseError:
            return
        self.finish(job, good=good)

    def finish(self, job, *, good):
        entry = job.entry
        if not good:
            self.queue.again(job, "out of reach", after=1, counts=False)
        elif job.work is Work.RECEIVE:
            self.queue.received(job, self.series[job.key], "r", 1)
        elif job.work is Work.RUN:
            self.predicted[job.key] = entry.taken
            self.queue.predicted(job, [])
        else:
            uid = (job.key, self.predicted[job.key])
            self.archive[uid] = self.archive.get(uid, 0) + 1
            self.queue.sent(job)

    @precondition(lambda self: self.jobs)
    @rule(stored=st.booleans())
    def is_killed(self, stored):
        """All that the process did not write down is forgotten."""
        job = self.jobs.pop()
        if stored and job.work is Work.SEND and self.is_mine(job):
            self.archive.setdefault((job.key, self.predicted[job.key]), 0)
        self.queue = self.opened()

    def is_mine(self, job):
        try:
            self.queue.renew(job)
        except LostLeaseError:
            return False
        return True

    @rule(seconds=st.sampled_from([1, 10, LEASE + 1]))
    def time_passes(self, seconds):
        self.clock.now += seconds

    @invariant()
    def goes_only_allowed_ways(self):
        for key in self.series:
            states = [state for state, _ in self.queue.steps(key)]
            for before, after in pairwise(states):
                assert after in ALLOWED[before]
            assert states[-1] is self.queue.entry(key).state

    @invariant()
    def none_is_confirmed_twice(self):
        """A series is done once for what it holds."""
        assert all(count <= 1 for count in self.archive.values())

    def teardown(self):
        """Whatever happened: in the end each series is done, with all it holds."""
        self.jobs.clear()
        self.queue = self.opened()
        for _ in range(50):
            if all(entry.state in FINAL for entry in self.queue.entries()):
                break
            self.clock.now += LEASE + 10
            jobs = [self.queue.claim(work) for work in Work]
            for job in filter(None, jobs):
                self.finish(job, good=True)
        for key, count in self.series.items():
            entry = self.queue.entry(key)
            assert entry.state in FINAL
            assert entry.taken == count or count == 1
            assert (key, entry.taken) in self.archive
        self.none_is_confirmed_twice()
        self.folder.cleanup()


TestService = Service.TestCase
TestService.settings = settings(
    max_examples=12, stateful_step_count=25, derandomize=True, deadline=None
)
