"""What is known of a job, and the states that it may be in.

queued -> running -> done
|  ^------|  |
|            +---> failed
+---------------> cancelled
"""

from dataclasses import dataclass, field
from enum import StrEnum

from trivox.errors import BusyError, TrivoxError


class State(StrEnum):
    """Where a job is on its way."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


NO_FORMAT = (
    "the file is of no known format; send NIfTI, NRRD, MHA, DICOM, or a zip of it"
)
ENDED = (State.DONE, State.FAILED, State.CANCELLED)
OPEN = (State.QUEUED, State.RUNNING)


class Stage(StrEnum):
    """What is done with a running job."""

    QUEUED = "queued"
    READING = "reading"
    PREPARING = "preparing"
    COMPUTING = "computing"
    WRITING = "writing"
    ENDED = "ended"


SHARES = {
    Stage.QUEUED: 0.0,
    Stage.READING: 0.02,
    Stage.PREPARING: 0.1,
    Stage.COMPUTING: 0.25,
    Stage.WRITING: 0.9,
    Stage.ENDED: 1.0,
}
"""How much of a job is done when a stage begins."""


class Failure(StrEnum):
    """Why a job failed: stable codes, which programs may ask for."""

    UNUSABLE_INPUT = "unusable-input"
    UNKNOWN_FORMAT = "unknown-format"
    UNSAFE_ARCHIVE = "unsafe-archive"
    MODEL = "unusable-model"
    MEMORY = "memory-limit"
    TIME = "time-limit"
    CRASHED = "crashed"
    INTERRUPTED = "interrupted"
    NO_SPACE = "no-space"
    ARCHIVE = "archive-unreachable"
    NOT_IN_ARCHIVE = "not-in-archive"
    INTERNAL = "internal"


TRIED_AGAIN = (Failure.NO_SPACE, Failure.ARCHIVE)
"""What may be otherwise a while later."""


class QueueFullError(BusyError):
    """No more jobs are taken at the moment."""


class TooManyJobsError(BusyError):
    """No more jobs of this client are taken at the moment."""


class OtherRequestError(TrivoxError):
    """The idempotency key belongs to another request."""


class LostLeaseError(BusyError):
    """The job was cancelled, or another process works on it by now."""


@dataclass(frozen=True)
class ResultFile:
    """A file that a job left. size: bytes."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class NewJob:
    """What a client asks for. client: pseudonym of its token; key: idempotency key, as a
    hash; body: hash of all that was sent; size: bytes of it; unreadable: whether it is
    known already that nothing can be made of it.
    """

    id: str
    client: str
    model: str
    format: str | None
    body: str
    size: int
    key: str | None = None
    unreadable: bool = False
    series: str | None = None


@dataclass(frozen=True)
class Job:
    """A job as it is. created, started, ended: seconds since 1970; seconds: that the last
    try took; folder: of the results, in that of the job; change: grows with every change;
    child: number of the process that computes it, `child_started` when it began.
    """

    id: str
    client: str
    model: str
    format: str | None
    series: str | None
    body: str
    size: int
    state: State
    stage: Stage
    progress: float
    code: str | None
    detail: str | None
    created: float
    started: float | None
    ended: float | None
    seconds: float | None
    tries: int
    interruptions: int
    folder: str | None
    expired: bool
    change: int
    child: int | None
    child_started: float | None
    results: tuple[ResultFile, ...] = field(default=())

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True)
class Claim:
    """A job that this process works on, and the lease that says so."""

    job: Job
    lease: str

    @property
    def id(self) -> str:
        """Of the job."""
        return self.job.id
