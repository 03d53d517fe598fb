"""States of a series, and what there is to do in them."""

from dataclasses import dataclass
from enum import StrEnum

from trivox.errors import BusyError


class State(StrEnum):
    """Where a series is on its way."""

    WAITING = "waiting"
    READY = "ready"
    RUNNING = "running"
    SENDING = "sending"
    DONE = "done"
    FAILED = "failed"
    IGNORED = "ignored"


class Work(StrEnum):
    """What there is to do."""

    RECEIVE = "receive"
    RUN = "run"
    SEND = "send"


TAKEN_FROM = {
    Work.RECEIVE: (State.WAITING,),
    Work.RUN: (State.READY, State.RUNNING),
    Work.SEND: (State.SENDING,),
}
AT_WORK = {
    Work.RECEIVE: State.WAITING,
    Work.RUN: State.RUNNING,
    Work.SEND: State.SENDING,
}
AGAIN = {
    Work.RECEIVE: State.WAITING,
    Work.RUN: State.READY,
    Work.SEND: State.SENDING,
}
"""The state while one works, and the one in which it is tried again."""
FINAL = (State.DONE, State.FAILED, State.IGNORED)


class LostLeaseError(BusyError):
    """Another process works on the series by now."""


@dataclass(frozen=True)
class Entry:
    """A series of the queue.

    origin: profile or title that it came from; received, expected: objects here and
    where it came from; taken: those that a prediction has seen; child: process of it.
    """

    key: str
    study: str
    origin: str
    state: State
    reason: str
    rule: str
    received: int
    expected: int | None
    taken: int
    tries: int
    child: str


@dataclass(frozen=True)
class Job:
    """A series that this process works on, and the lease that says so."""

    entry: Entry
    work: Work
    owner: str

    @property
    def key(self) -> str:
        """The series' pseudonym."""
        return self.entry.key
