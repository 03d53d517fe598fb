"""A worker: it takes one job after the other, does each in a child, and vouches for it as
long as the child runs. It has one thread, so that it can fork.

It ends when its standard input does, which the server holds; a line there says that a
job waits.
"""

import json
import logging
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trivox.errors import TrivoxError
from trivox.files import read_json
from trivox.service.serve.jobs.folders import Folders
from trivox.service.serve.jobs.states import (
    SHARES,
    TRIED_AGAIN,
    Claim,
    Failure,
    LostLeaseError,
    ResultFile,
    Stage,
    State,
)
from trivox.service.serve.jobs.store import JobStore
from trivox.service.serve.settings import WorkSettings
from trivox.service.serve.work.child import Child, fork_child, messages_of
from trivox.service.serve.work.engine import Engine
from trivox.service.serve.work.limits import kill_group, memory_of, started_at

LOG = logging.getLogger("trivox.serve.worker")
TICK = 0.05
"""Seconds between two looks at a child."""
BEAT = 1.0
"""Seconds between two renewals of a lease."""
IDLE = 0.2
"""Seconds between two looks for a job that nobody announced."""
LATER = 20
"""Times as long is waited for a disk that is full, or an archive that is down."""
NEARLY = 0.89
"""Of a job that takes longer than those before."""
PIPE = 1 << 16


@dataclass
class Watch:
    """A child under observation. began: by the steady clock; killed: why it was killed;
    last: what it said at its end; status: that it ended with.
    """

    claim: Claim
    child: Child
    started: float | None
    began: float
    expected: float | None
    stage: Stage = Stage.READING
    progress: float = 0.0
    renewed: float = 0.0
    text: bytes = b""
    killed: Failure | None = None
    lost: bool = False
    returned: bool = False
    last: dict[str, Any] = field(default_factory=dict)
    status: int | None = None

    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.began

    def advance(self) -> None:
        """How far it is: by its stage, and by the time that jobs take."""
        share = SHARES[self.stage]
        if self.expected:
            share = max(share, min(self.seconds() / self.expected, NEARLY))
        self.progress = max(self.progress, round(share, 3))

    def kill(self, reason: Failure | None = None) -> None:
        """End it and all that it started."""
        self.killed = self.killed or reason
        kill_group(self.child.process, self.started)


class Worker:
    """Does jobs until it is asked to stop."""

    def __init__(self, settings: WorkSettings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.folders = Folders(settings.folder)
        self.store = JobStore(settings.folder, lease=settings.lease)
        self.stopping: float | None = None
        self.orphaned = False

    def run(self) -> None:
        """Do jobs until the server ends, or SIGTERM comes."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server
        for model in self.settings.models:
            self._warm(model.name)
        while self.stopping is None and not self.orphaned:
            claim = self._claim()
            if claim is None:
                self._listen(IDLE)
            else:
                self._do(claim)

    def _stop(self, *_: object) -> None:
        self.stopping = time.monotonic()

    def _warm(self, model: str) -> None:
        try:
            self.engine.warm(model)
        except TrivoxError:
            LOG.exception("model %s cannot be made ready", model)

    def _claim(self) -> Claim | None:
        try:
            return self.store.claim(os.getpid())
        except TrivoxError as error:
            LOG.error("%s", error)
            return None

    def _listen(self, seconds: float, *others: int) -> None:
        """Wait until a job is announced or a child speaks."""
        standard = sys.stdin.fileno()
        watched = others if self.orphaned else (standard, *others)
        ready, _, _ = select.select(watched, (), (), seconds)
        if standard in ready and not os.read(standard, PIPE):
            self.orphaned = True

    # -- one job -----------------------------------------------------------------------
    def _do(self, claim: Claim) -> None:
        watch = self._begin(claim)
        try:
            while not _has_ended(watch):
                self._listen(TICK, watch.child.reader)
                _hear(watch)
                self._look_at(watch)
        except TrivoxError as error:  # the disk; another worker will take over
            LOG.error("job %s: %s", claim.id, error)
            watch.kill()
            watch.lost = True
        _bury(watch)
        try:
            self._settle(watch)
        except LostLeaseError:
            watch.lost = True
        except TrivoxError as error:
            LOG.error("job %s: %s", claim.id, error)
        self._tidy(watch)

    def _begin(self, claim: Claim) -> Watch:
        expected = self.store.expected_seconds(claim.job.model)
        child = fork_child(self.engine, self.settings, self.folders, claim)
        started = started_at(child.process)
        watch = Watch(claim, child, started, time.monotonic(), expected)
        try:
            self.store.works_as(claim, child.process, started or 0.0)
            child.let_off()
        except TrivoxError:  # it was cancelled, or the disk is full
            child.forget()
            watch.lost = True
        LOG.info("job %s: try %d begins", claim.id, claim.job.tries + 1)
        return watch

    def _look_at(self, watch: Watch) -> None:
        limits = self.settings.limits
        if watch.seconds() > limits.seconds:
            watch.kill(Failure.TIME)
        elif memory_of(watch.child.process) > limits.memory + self._memory:
            watch.kill(Failure.MEMORY)
        elif self.orphaned or self._is_out_of_grace():
            watch.returned = True
            watch.kill()
        else:
            self._vouch(watch)

    @property
    def _memory(self) -> int:
        """Bytes that a child has of this process from the beginning."""
        return memory_of(os.getpid())

    def _is_out_of_grace(self) -> bool:
        if self.stopping is None:
            return False
        return time.monotonic() > self.stopping + self.settings.grace

    def _vouch(self, watch: Watch) -> None:
        """Renew the lease now and then; a job that was cancelled is killed at once."""
        now = time.monotonic()
        try:
            if not watch.renewed or now > watch.renewed + BEAT:
                self._renew(watch)
            elif not self.store.is_held(watch.claim):
                raise LostLeaseError(watch.claim.id)
        except LostLeaseError:
            watch.lost = True
            watch.kill()

    def _renew(self, watch: Watch) -> None:
        watch.advance()
        self.store.renew(watch.claim, watch.stage, watch.progress)
        watch.renewed = time.monotonic()

    # -- its end -----------------------------------------------------------------------
    def _settle(self, watch: Watch) -> None:
        """Note what became of a job."""
        claim = watch.claim
        if watch.lost:
            return
        if "done" in watch.last:
            self._finish(watch)
        elif watch.returned:
            self.store.give_back(claim)
            LOG.info("job %s: given back", claim.id)
        elif watch.killed is not None:
            self._fail(claim, watch.killed, _over(watch.killed))
        elif "failed" in watch.last:
            self._failed(watch)
        elif watch.status == -signal.SIGXCPU:
            self._fail(claim, Failure.TIME, _over(Failure.TIME))
        else:
            detail = f"the computation ended by itself (code {watch.status})"
            self._again(claim, Failure.CRASHED, detail)

    def _finish(self, watch: Watch) -> None:
        results = tuple(ResultFile(**each) for each in watch.last["done"])
        folder = self.folders.results(watch.claim.id, watch.claim.lease).name
        seconds = watch.seconds()
        self.store.finish(watch.claim, folder, results, seconds)
        LOG.info("job %s: done after %.2f s", watch.claim.id, seconds)

    def _failed(self, watch: Watch) -> None:
        code = Failure(watch.last["failed"])
        if code is Failure.INTERNAL:
            LOG.error("job %s: %s", watch.claim.id, watch.last["where"])
        if code in TRIED_AGAIN:
            self._again(watch.claim, code, watch.last["detail"])
        else:
            self._fail(watch.claim, code, watch.last["detail"])

    def _fail(self, claim: Claim, code: Failure, detail: str) -> None:
        self.store.fail(claim, code, detail)
        LOG.info("job %s: failed, %s", claim.id, code)

    def _again(self, claim: Claim, code: Failure, detail: str) -> None:
        patience = LATER if code in TRIED_AGAIN else 1
        pause = self.settings.pause * patience * 2**claim.job.tries
        state = self.store.again(claim, code, detail, after=pause)
        what = "set aside" if state is State.FAILED else "will be tried again"
        LOG.warning("job %s: %s, %s", claim.id, code, what)

    def _tidy(self, watch: Watch) -> None:
        """Remove what only this try needed, and results that nobody will fetch."""
        claim = watch.claim
        shutil.rmtree(self.folders.work(claim.id, claim.lease), ignore_errors=True)
        job = self.store.job(claim.id)
        results = self.folders.results(claim.id, claim.lease)
        if job is None or job.folder != results.name:
            shutil.rmtree(results, ignore_errors=True)


def _over(code: Failure) -> str:
    if code is Failure.TIME:
        return "the job took longer than it may"
    return "the job took more memory than it may; send a smaller scan"


def _has_ended(watch: Watch) -> bool:
    """Whether the child is no more; what it started may still be."""
    process, status = os.waitpid(watch.child.process, os.WNOHANG)
    if process:
        watch.status = os.waitstatus_to_exitcode(status)
    return bool(process)


def _hear(watch: Watch) -> None:
    """Read what the child says."""
    try:
        said = os.read(watch.child.reader, PIPE)
    except BlockingIOError:
        return
    lines, _, rest = (watch.text + said).rpartition(b"\n")
    watch.text = rest
    for message in messages_of(lines):
        if "stage" in message:
            watch.stage = Stage(message["stage"])
            watch.renewed = 0.0
        else:
            watch.last = message
    if not said:
        time.sleep(TICK)  # it ends


def _bury(watch: Watch) -> None:
    """Hear the last words of a child, and end what it started."""
    kill_group(watch.child.process, None)
    if watch.status is None:
        _, status = os.waitpid(watch.child.process, 0)
        watch.status = os.waitstatus_to_exitcode(status)
    _hear(watch)
    os.close(watch.child.reader)


def work(file: Path, make_engine: Callable[[WorkSettings], Engine]) -> None:
    """Be a worker with the settings of a file."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    os.umask(0o077)
    settings = WorkSettings.model_validate(read_json(file))
    Worker(settings, make_engine(settings)).run()


def settings_text(settings: WorkSettings) -> dict[str, Any]:
    """Settings as the file of workers has them."""
    content: dict[str, Any] = json.loads(settings.model_dump_json())
    return content
