"""Ctrl-C and SIGTERM as a wish to stop soon, so that the state saved is a whole one."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Both exist on every system; Windows only ever sends the first."""


@contextmanager
def stop_signals(ask: Callable[[], None]) -> Iterator[None]:
    """Call `ask` on SIGINT and SIGTERM instead of dying; the old handlers come back at
    the end.

    Outside the main thread, which alone may set handlers, nothing is changed.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        ask()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in old.items():
            # None: set by something else than Python, which cannot be set again
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
