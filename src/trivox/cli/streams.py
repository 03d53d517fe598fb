"""The streams of the command line: work goes on when nobody reads them any more, and
every letter can be printed.
"""

import errno
import io
import os
import sys
from typing import Any

GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Said of a stream that nobody reads any more: a pipe, a terminal that was closed."""


class Steady(io.FileIO):
    """What lies under a stream: once it cannot be written to, it swallows everything.

    lost: why text was lost that somebody still waits for, on a full disk say.
    """

    lost: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write bytes; errors end the stream, not the work."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in GONE:
                self.lost = error
            _silence(self.fileno())
            return len(data)


def steady_streams(*, alone: bool = False) -> Steady | None:
    """Make standard output and error such streams, where they are still those of the
    process; returns what lies under the output.

    alone: only what Python prints goes there; what libraries and other processes write
    to its number comes out with the errors.
    """
    if os.name == "nt":  # its consoles take no bytes
        return None
    _open_what_is_closed()
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        return None  # captured, or made steady before
    number = 1
    if alone:
        number = os.dup(1)
        os.dup2(2, 1)
    under = Steady(number, "w", closefd=False)
    sys.stdout = _text_stream(under, sys.stdout)
    sys.stderr = _text_stream(Steady(2, "w", closefd=False), sys.stderr)
    return under


def _open_what_is_closed() -> None:
    """Let the numbers of standard streams lead nowhere where they are closed, so that no
    file gets one of them, and with it whatever a library prints.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the smallest number that is free


def _text_stream(under: Steady, old: io.TextIOBase | None) -> io.TextIOWrapper:
    encoding = getattr(old, "encoding", None) or "utf-8"
    if old is not None:
        old.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(under),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=True,
    )


def _silence(number: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
