"""What happens by itself as time goes by: results expire, leftovers go."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from trivox.errors import TrivoxError
from trivox.service.serve.jobs.folders import Folders
from trivox.service.serve.jobs.store import JobStore

LOG = logging.getLogger("trivox.serve")
PAUSE = 30.0
"""Seconds between two rounds."""
JUMP = 5.0
"""Seconds by which clocks may drift apart between two rounds."""
REMEMBERED = 7 * 86_400.0
"""Seconds for which a job is known after its results have expired."""


@dataclass
class Janitor:
    """Goes round now and then. keep: seconds for which results are kept; sweep: removes
    what else has become too old.

    Somebody may set the clock of the machine: ages are moved with it, so that nothing
    expires too early.
    """

    store: JobStore
    folders: Folders
    keep: float
    sweep: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    pause: float = PAUSE
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None
    _offset: float = 0.0

    def start(self) -> None:
        """Remove what an earlier server left, and begin."""
        self._offset = self.clock() - self.steady()
        self.folders.sweep(self.store.known_ids(), young=0.0)
        self._thread = threading.Thread(target=self._go_round, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _go_round(self) -> None:
        while not self._ended.wait(self.pause):
            try:
                self.round()
            except (OSError, TrivoxError) as error:
                LOG.error("cleaning up: %s", error)

    def round(self) -> None:
        """Remove what is older than it may be."""
        self._follow_clock()
        now = self.clock()
        for id in self.store.ended_before(now - self.keep):
            self.store.expire(id)
            self.folders.remove(id)
        self.store.forget(now - self.keep - REMEMBERED)
        self.folders.sweep(self.store.known_ids())
        self.sweep()

    def _follow_clock(self) -> None:
        offset = self.clock() - self.steady()
        jump = offset - self._offset
        if abs(jump) > JUMP:
            self.store.shift(jump)
            LOG.warning("the clock was set by %.0f s", jump)
        self._offset = offset
