"""Work that goes on meanwhile, and ends at once when its caller does."""

import ctypes
from collections.abc import Callable
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PATIENCE = 0.5
"""Seconds after which a wait looks round: where waits cannot be interrupted (Windows),
so long does Ctrl-C take.
"""


class Later(Generic[T]):
    """The result of work that a thread does meanwhile."""

    def __init__(self, work: Callable[[], T]) -> None:
        self._work = work
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="trivox-meanwhile", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            result = self._work()
            self._results.append(result)
        except BaseException as error:
            self._error = error

    def result(self) -> T:
        """Wait for the result; raises what the work raised."""
        self.wait()
        if self._error is not None:
            raise self._error
        return self._results.pop()

    @property
    def goes_on(self) -> bool:
        """Whether the thread has not ended yet."""
        return self._thread.is_alive()

    def wait(self) -> None:
        """Until the thread has ended."""
        while self.goes_on:
            self._thread.join(PATIENCE)

    def interrupt(self) -> None:
        """Do to the thread what Ctrl-C does to the main one: it leaves its work at the
        next instruction of Python, and cleans up behind itself.
        """
        number = self._thread.ident
        if number is not None and self.goes_on:
            stop = ctypes.py_object(SystemExit)  # a thread ends by it without a word
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(number), stop)


class Crew:
    """Threads that end where a `with` block does, however it is left."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._work: list[Later[Any]] = []
        self._dismissed = False

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.dismiss()

    def begin(self, work: Callable[[], T]) -> Later[T]:
        """Begin with some work; nobody begins any more once all are dismissed."""
        with self._lock:
            if self._dismissed:
                raise SystemExit
            later = Later(work)
            self._work = [each for each in self._work if each.goes_on]
            self._work.append(later)
        return later

    def dismiss(self) -> None:
        """End all threads and wait until they have."""
        with self._lock:
            self._dismissed = True
            working = list(self._work)
        # without the lock: a thread that waits for it could not hear that it is to end
        for later in working:
            later.interrupt()
        for later in working:
            later.wait()
