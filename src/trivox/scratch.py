"""Folders for what nobody needs later, which may hold images of patients: gone however
the work in them ends, but for SIGKILL.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import NoReturn

ENDING = ("SIGTERM", "SIGHUP")
"""Signals that end a process on the spot unless it asks otherwise."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder that is removed at the end, also where SIGTERM or a closed terminal
    is the end.
    """
    with _ended_by_an_exception(), TemporaryDirectory(prefix="trivox-") as name:
        yield Path(name)


@contextmanager
def _ended_by_an_exception() -> Iterator[None]:
    """Within, signals that would end the process on the spot raise `SystemExit` with
    the code that shells give them. Handlers that somebody has set stay, and so does
    everything outside the main thread, which alone may set them.
    """
    numbers = [getattr(signal, name) for name in ENDING if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    deadly = [each for each in numbers if signal.getsignal(each) == signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)
