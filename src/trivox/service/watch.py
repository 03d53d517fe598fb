"""Watching an archive: series for which there is a rule enter the queue, are fetched,
predicted, and answered.
"""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta

from trivox.errors import DataError
from trivox.service.fetching import fetch_series
from trivox.service.jobs.queue import RESULT, Queue
from trivox.service.jobs.states import Job, State
from trivox.service.jobs.work import Arrival, Worker
from trivox.service.objects import Shelf
from trivox.service.peers.archive import (
    COUNT,
    SERIES,
    STUDY,
    Archive,
    Attributes,
    Query,
    RefusedError,
    UnreachableError,
    number_in,
)
from trivox.service.rules import Rules

STUDY_COUNT = "NumberOfStudyRelatedInstances"
NO_LONGER = "the archive does not list it any more"
IDLE = 1.0
"""Seconds between two looks into the queue."""


@dataclass(frozen=True)
class Listed:
    """A series as the archive lists it."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    count: int | None


@dataclass
class Watched:
    """An archive, and what it lists.

    today: the day; studies are looked for from some days before it on; counts: of the
    objects of each study when its series were listed.
    """

    archive: Archive
    rules: Rules
    queue: Queue
    shelf: Shelf
    say: Callable[[str], None]
    today: Callable[[], date] = date.today
    listed: dict[str, Listed] = field(default_factory=dict)
    counts: dict[str, str] = field(default_factory=dict)
    has_answered: bool = False

    def look(self) -> None:
        """See what the archive has; what it does not answer is asked later again.

        Raises `RefusedError` if it has never answered as it should: its profile is
        wrong then.
        """
        try:
            studies = self.archive.studies(Query(dates=self._dates()))
        except UnreachableError as error:
            self.say(str(error))
            return
        except RefusedError as error:
            if not self.has_answered:
                raise
            self.say(str(error))
            return
        self.has_answered = True
        entries = self.queue.entries()
        waiting = {each.study for each in entries if each.state is State.WAITING}
        for study in studies:
            try:
                self._look_at(study, waiting)
            except (UnreachableError, RefusedError) as error:
                self.say(str(error))

    def _dates(self) -> str:
        first = self.today() - timedelta(days=self.rules.intake.days)
        return f"{first:%Y%m%d}-"

    def _look_at(self, study: Attributes, waiting: Collection[str]) -> None:
        """Note the series of a study; waiting: studies of which something is missing.
        One that has as many objects as before is not asked for again.
        """
        name = self.shelf.names.of(study[STUDY])
        count = study.get(STUDY_COUNT, "")
        if count and self.counts.get(name) == count and name not in waiting:
            return
        self._list(study)
        self.counts[name] = count

    def _list(self, study: Attributes) -> None:
        for row in self.archive.series(study[STUDY]):
            key = self.shelf.names.of(row[SERIES])
            count = number_in(row, COUNT)
            self.listed[key] = Listed(study[STUDY], row[SERIES], count)
            self._note(key, {**study, **row}, count)

    def _note(self, key: str, row: Mapping[str, str], count: int | None) -> None:
        """Let a series into the queue, or take note of its number of objects."""
        known = self.queue.entry(key)
        if known is not None and known.origin == RESULT:
            return
        study = self.shelf.names.of(row[STUDY])
        rule = self.rules.candidate(row.get)
        name = self.archive.name
        if rule is None:
            self.queue.ignore(key, study, name, "no rule is for it")
            return
        if known is None:
            self.queue.seen(key, study, name, rule=rule.name, rank=rule.rank)
        if count is not None:
            self.queue.counted(key, count, stable=self.rules.intake.stable)

    def receive(self, job: Job) -> Arrival:
        """Fetch what is missing of a series; see `Worker.arrivals`."""
        listed = self.listed.get(job.key)
        if listed is None:
            return Arrival(0, None, NO_LONGER)
        receipt = fetch_series(
            self.archive, self.shelf, listed.study, listed.series, listed.count
        )
        if receipt.problem:
            raise DataError(receipt.problem)
        lack = "" if receipt.is_whole else receipt.lack
        return Arrival(receipt.here, receipt.expected, lack)


def watch(watched: Watched, worker: Worker, *, once: bool) -> None:
    """Look and work until asked to stop; once: until all that is there was tried."""
    every = watched.rules.intake.every
    looked = -every
    watched.queue.free_dead()
    while not worker.stop.is_set():
        if once or time.monotonic() - looked >= every:
            watched.look()
            worker.tidy()
            looked = time.monotonic()
        busy = worker.turn()
        if once and worker.is_through():
            return
        if not busy:
            worker.stop.wait(IDLE)
