"""Ctrl-C, SIGTERM and a closed terminal as a wish to stop soon, so that the state saved
is a whole one.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

HANGUP = getattr(signal, "SIGHUP", None)
"""A terminal was closed; Windows knows no such signal."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Both exist on every system; Windows only ever sends the first."""


@contextmanager
def stop_signals(ask: Callable[[], None]) -> Iterator[None]:
    """Call `ask` on SIGINT, SIGTERM and SIGHUP instead of dying; the old handlers come
    back at the end.

    A SIGHUP that is ignored, as `nohup` has it, stays ignored. Outside the main thread,
    which alone may set handlers, nothing is changed.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        ask()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [*SIGNALS]
    if HANGUP is not None and signal.getsignal(HANGUP) != signal.SIG_IGN:
        numbers.append(HANGUP)
    old = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in old.items():
            # None: set by something else than Python, which cannot be set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
