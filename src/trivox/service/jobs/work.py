"""What is done with a series at each step: receive, predict, send."""

import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from trivox.errors import (
    DataError,
    InterruptedTrainingError,
    ResourceError,
    TrivoxError,
    few,
)
from trivox.repeating import repeating
from trivox.service.jobs.child import Limits, end_orphan, run_child
from trivox.service.jobs.queue import Queue
from trivox.service.jobs.states import FINAL, Entry, Job, LostLeaseError, State, Work
from trivox.service.objects import (
    DicomObject,
    Shelf,
    looked_up,
    objects_in,
    read_header,
    read_object,
)
from trivox.service.peers.archive import Archive, Retry
from trivox.service.pseudonyms import identifying, scrubbed
from trivox.service.rules import SENDER, Rule, Rules
from trivox.service.sending import send_objects

PREDICT = (sys.executable, "-m", "trivox", "predict")
"""The program that predicts, a process for each series."""
RECEIVED = "received"
RESULTS = "results"
LOOKS = 3
PAUSE = 0.5
"""How often results are looked for in an archive that does not show them yet, and
seconds before the second time, doubled for each other.
"""
BEATS = 4
"""How often a lease is renewed in its time."""


@dataclass(frozen=True)
class Arrival:
    """What is here of a series, and how much there should be (None: nobody knows)."""

    here: int
    expected: int | None
    lack: str = ""


@dataclass
class Worker:
    """Takes series out of the queue and one step further.

    archives: by the name of their profile; arrivals: sees to it that what is missing of
    a series comes; senders: profile by origin, where a series came from; stop: whether
    to end; put_back: series whose step did not succeed.
    """

    folder: Path
    queue: Queue
    rules: Rules
    shelf: Shelf
    archives: Mapping[str, Archive]
    senders: Mapping[str, str]
    arrivals: Callable[[Job], Arrival]
    say: Callable[[str], None]
    stop: threading.Event
    put_back: set[str] = field(default_factory=set)

    def turn(self) -> bool:
        """A step of each kind, the most urgent series first; False if there was none to
        take.
        """
        steps = {
            Work.RECEIVE: self._receive,
            Work.RUN: self._run,
            Work.SEND: self._send,
        }
        busy = False
        for work, act in steps.items():
            job = None if self.stop.is_set() else self.queue.claim(work)
            if job is not None:
                busy = True
                self._guarded(job, act)
        return busy

    def _guarded(self, job: Job, act: Callable[[Job, "Heart"], None]) -> None:
        """A step; whatever goes wrong in it is of this series alone."""
        pause = self.rules.intake.every
        try:
            with beating(self.queue, job) as heart:
                self.put_back.discard(job.key)
                act(job, heart)
        except InterruptedTrainingError:
            self._again(job, "", after=0.0, counts=False)
        except LostLeaseError as error:
            self.say(str(error))
        except ResourceError as error:
            self._again(job, str(error), after=pause, counts=False)
        except TrivoxError as error:
            after = pause * 2**job.entry.tries
            self._again(job, str(error), after=after, counts=True)
        except Exception as error:  # of a library: the service goes on
            reason = f"{type(error).__name__} while it was to {job.work}"
            self._again(job, reason, after=pause, counts=True)

    def _again(self, job: Job, reason: str, *, after: float, counts: bool) -> None:
        clean = scrubbed(reason, self._secrets(job) if reason else ())
        self.put_back.add(job.key)
        try:
            state = self.queue.again(job, clean, after=after, counts=counts)
        except LostLeaseError as error:
            self.say(str(error))
            return
        if clean and clean != job.entry.reason:
            self.say(f"series {job.key}: {state}: {clean}")

    # -- steps -------------------------------------------------------------------------
    def _receive(self, job: Job, heart: "Heart") -> None:
        arrival = self.arrivals(job)
        if arrival.lack:
            after = max(self.rules.intake.stable, 1.0)
            self._again(job, arrival.lack, after=after, counts=False)
            return
        dataset = read_header(objects_in(self._received(job.entry))[0])
        rule = self.rules.chosen(lambda name: looked_up(dataset, name), arrival.here)
        heart.require()
        if rule is None:
            self.queue.turned_away(job, "no rule is for it")
            return
        self.queue.received(job, arrival.here, rule.name, rule.rank)
        self.say(f"series {job.key}: {arrival.here} objects, rule {rule.name}")

    def _run(self, job: Job, heart: "Heart") -> None:
        rule = self._rule(job)
        out = self._results(job.entry)
        end_orphan(job.entry.child)
        shutil.rmtree(out, ignore_errors=True)
        run_child(
            self._command(rule, self._received(job.entry), out),
            out.with_suffix(".log"),
            Limits(rule.time_limit, self.stop.is_set, heart.is_lost),
            started=lambda child: self.queue.renew(job, child=child),
            secrets=self._secrets(job),
        )
        series = {self.shelf.names.of(each.series) for each in self._objects(job)}
        heart.require()
        self.queue.predicted(job, series)
        self.say(f"series {job.key}: predicted, rule {rule.name}")

    def _command(self, rule: Rule, source: Path, out: Path) -> list[str]:
        formats = ",".join(rule.formats)
        options = ["--out", str(out), "--format", formats, *rule.options]
        return [*PREDICT, rule.model, str(source), *options]

    def _send(self, job: Job, heart: "Heart") -> None:
        objects = self._objects(job)
        failures = []
        for name in self._destinations(job):
            try:
                self._deliver(job, name, objects)
            except TrivoxError as error:
                failures.append(error)
            heart.require()
        if failures:
            raise failures[0]
        self.queue.sent(job, stable=self.rules.intake.stable)

    def _deliver(self, job: Job, name: str, objects: Sequence[DicomObject]) -> None:
        if name not in self.archives:
            raise DataError(f"{name}: there is no such profile to send results to")
        sent = send_objects(
            self.archives[name], objects, Retry(LOOKS, PAUSE, self._sleep)
        )
        sent.require_all()
        self.say(f"series {job.key}: {sent.summary}")

    def _sleep(self, seconds: float) -> None:
        self.stop.wait(seconds)

    # -- what a step needs -------------------------------------------------------------
    def _rule(self, job: Job) -> Rule:
        rule = self.rules.named(job.entry.rule)
        if rule is None:
            raise DataError(f"rule {job.entry.rule} is no longer among the rules")
        return rule

    def _destinations(self, job: Job) -> list[str]:
        """Names of the profiles that results go to."""
        origin = self.senders.get(job.entry.origin, job.entry.origin)
        names = self._rule(job).send_to
        return list(dict.fromkeys(origin if n == SENDER else n for n in names))

    def _objects(self, job: Job) -> list[DicomObject]:
        """What a prediction wrote to be sent; raises `DataError` if that is nothing, or
        of another study.
        """
        files = sorted(self._results(job.entry).rglob("*.dcm"))
        objects = [read_object(file) for file in files]
        if not objects:
            raise DataError("the prediction wrote no DICOM object")
        names = self.shelf.names
        if any(names.of(each.study) != job.entry.study for each in objects):
            raise DataError("a result belongs to another study; nothing is sent")
        return objects

    def _received(self, entry: Entry) -> Path:
        return self.folder / RECEIVED / entry.study / entry.key

    def _results(self, entry: Entry) -> Path:
        return self.folder / RESULTS / entry.key

    def _secrets(self, job: Job) -> list[str]:
        """What must not be said of a series."""
        for file in objects_in(self._received(job.entry))[:1]:
            try:
                return identifying(read_header(file))
            except TrivoxError:
                continue
        return []

    # -- tidying and telling -----------------------------------------------------------
    def tidy(self) -> None:
        """Remove the files of series that were done a while ago."""
        hours = self.rules.intake.keep_hours
        for entry in self.queue.finished_before(self.queue.clock() - hours * 3600):
            shutil.rmtree(self._received(entry), ignore_errors=True)
            shutil.rmtree(self._results(entry), ignore_errors=True)
            self._results(entry).with_suffix(".log").unlink(missing_ok=True)

    def is_through(self) -> bool:
        """Whether every series is at its end, or was tried by this process in vain."""
        open_ones = (e for e in self.queue.entries() if e.state not in FINAL)
        return all(entry.key in self.put_back for entry in open_ones)

    def summary(self) -> str:
        """How many series are in which state."""
        states = [entry.state for entry in self.queue.entries()]
        counts = [f"{states.count(s)} {s}" for s in State if s in states]
        return f"{len(states)} series: {', '.join(counts)}" if counts else "no series"

    def require_done(self) -> None:
        """Raise `DataError` for what did not come to a good end."""
        bad = [
            e
            for e in self.queue.entries()
            if e.state not in (State.DONE, State.IGNORED)
        ]
        if bad:
            reasons = few(f"{e.key} {e.state}: {e.reason}" for e in bad)
            raise DataError(f"{self.folder}: {len(bad)} series are not done: {reasons}")


class Heart:
    """Whether the lease of a job is still this process's."""

    def __init__(self) -> None:
        self.lost = threading.Event()

    def is_lost(self) -> bool:
        """Whether another process has taken over."""
        return self.lost.is_set()

    def require(self) -> None:
        """Raise `LostLeaseError` if so."""
        if self.is_lost():
            raise LostLeaseError("a series: another process works on it")


@contextmanager
def beating(queue: Queue, job: Job) -> Iterator[Heart]:
    """Renew a lease while one works."""
    heart = Heart()

    def beat() -> None:
        if heart.is_lost():
            return
        try:
            queue.renew(job)
        except LostLeaseError:
            heart.lost.set()
        except TrivoxError:
            pass  # the disk, perhaps for a moment

    with repeating(beat, every=queue.lease / BEATS, thread_name="trivox-lease"):
        yield heart
