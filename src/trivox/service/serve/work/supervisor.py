"""Keeps the workers alive: one that dies is followed by another, and its job waits again."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from trivox.errors import TrivoxError
from trivox.service.serve.jobs.folders import Folders
from trivox.service.serve.jobs.store import JobStore
from trivox.service.serve.work.limits import kill_group

LOG = logging.getLogger("trivox.serve")
TICK = 0.1
PATIENCE = 20.0
"""Seconds until a worker that was asked to stop is killed."""
SHORT = 5.0
"""Seconds of a life after which the next worker is not started at once."""
WITHOUT_THREADS = ("env", "OPENBLAS_NUM_THREADS=1")
"""Workers fork: no library starts threads before."""
LONGEST = 30.0
"""Seconds at most between two starts."""


@dataclass
class Place:
    """A place for a worker, and who has it."""

    process: subprocess.Popen[bytes] | None = None
    born: float = 0.0
    pause: float = 0.0
    next: float = field(default=0.0)


class Supervisor:
    """Workers of one folder. command: starts a worker."""

    def __init__(
        self, command: Sequence[str], workers: int, store: JobStore, folders: Folders
    ) -> None:
        self.command = list(command)
        self.store = store
        self.folders = folders
        self.places = [Place() for _ in range(workers)]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def alive(self) -> int:
        """How many workers run."""
        processes = [place.process for place in self.places]
        return sum(each is not None and each.poll() is None for each in processes)

    @property
    def processes(self) -> list[int]:
        """Their numbers."""
        return [each.process.pid for each in self.places if each.process is not None]

    def start(self) -> None:
        """Take over what an earlier server left, and start the workers."""
        for job in self.store.interrupted():
            if job.child is not None:
                kill_group(job.child, job.child_started)
        for id in self.store.known_ids():
            self._clear(id)
        self._thread.start()

    def _clear(self, id: str) -> None:
        job = self.store.job(id)
        keep = () if job is None or job.folder is None else (job.folder,)
        self.folders.clear_work(id, keep)

    def announce(self) -> None:
        """Tell the workers that a job waits."""
        for place in self.places:
            if place.process is not None and place.process.stdin is not None:
                with suppress(OSError):
                    os.write(place.process.stdin.fileno(), b"\n")

    def stop(self) -> None:
        """Let the workers finish for a while, then end them."""
        self._ended.set()
        self._thread.join()
        processes = [
            place.process for place in self.places if place.process is not None
        ]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + PATIENCE
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(deadline - time.monotonic(), 0.1))
        for process in processes:
            process.kill()
            process.wait()
            _close(process)
            self._free(process.pid)

    def _watch(self) -> None:
        while not self._ended.wait(TICK):
            for place in self.places:
                try:
                    self._look_at(place)
                except (OSError, TrivoxError) as error:
                    LOG.error("workers: %s", error)

    def _look_at(self, place: Place) -> None:
        process = place.process
        if process is not None and process.poll() is None:
            return
        now = time.monotonic()
        if process is not None:
            place.process = None
            _close(process)
            brief = now - place.born < SHORT
            place.pause = min(max(2 * place.pause, TICK), LONGEST) if brief else 0.0
            place.next = now + place.pause
            LOG.warning("a worker ended (code %s)", process.returncode)
            self._free(process.pid)
        if now >= place.next:
            place.process = self._started()
            place.born = now

    def _free(self, worker: int) -> None:
        """The job of a worker that is no more waits again."""
        for job in self.store.interrupted(worker):
            if job.child is not None:
                kill_group(job.child, job.child_started)

    def _started(self) -> subprocess.Popen[bytes]:
        command = [*WITHOUT_THREADS, *self.command]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, close_fds=True)
        assert process.stdin is not None
        os.set_blocking(process.stdin.fileno(), False)
        return process


def _close(process: subprocess.Popen[bytes]) -> None:
    """Let go of the pipe to a process that has ended."""
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
