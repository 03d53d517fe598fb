"""Ctrl-C and SIGTERM as a wish to stop soon, so that the state saved is a whole one."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_signals(ask: Callable[[], None]) -> Iterator[None]:
    """Call `ask` on SIGINT and SIGTERM instead of dying; the old handlers come back at
    the end.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        ask()

    try:
        old = {
            number: signal.signal(number, stop)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # not in the main thread: the caller handles its own signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
