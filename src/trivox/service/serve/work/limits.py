"""What a child may take of the machine, and that it does not outlive its parent."""

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil

DIE_WITH_PARENT = 1
"""`PR_SET_PDEATHSIG` of Linux's prctl."""
STATUS = Path("/proc/self/status")
POLITE = 5
"""By how much computing stands back behind answers."""
FIRST_VICTIM = "1000"
"""Whom the system kills first when memory runs out."""


def set_apart(parent: int) -> None:
    """Make this process the head of its own group, which ends with `parent`."""
    os.setsid()
    os.nice(POLITE)
    if sys.platform == "linux":
        library = ctypes.CDLL(None, use_errno=True)
        library.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(FIRST_VICTIM, encoding="ascii")
    if os.getppid() != parent:  # it died before
        os._exit(1)


def limit_this_process(*, memory: int, seconds: float, largest: int) -> None:
    """memory: bytes of data beyond those that this process has; seconds: of CPU time;
    largest: bytes of a file.
    """
    import resource  # not on Windows

    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_CPU, int(seconds) + 1, warning=True)
    _limit(resource.RLIMIT_FSIZE, largest)
    data = _data_bytes()
    if data is not None:
        _limit(resource.RLIMIT_DATA, data + memory)


def _limit(what: int, value: int, *, warning: bool = False) -> None:
    """Set a limit, below one that there is already. warning: of CPU time, a signal comes
    some seconds before the end.
    """
    import resource

    _, hard = resource.getrlimit(what)
    allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (allowed, hard if warning else allowed))


def _data_bytes() -> int | None:
    """Private memory that this process may write to; None where the system does not say."""
    with suppress(OSError, StopIteration, ValueError):
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        line = next(each for each in lines if each.startswith("VmData:"))
        return int(line.split()[1]) * 1024
    return None


def memory_of(process: int) -> int:
    """Bytes of memory that a process holds, 0 if it is no more."""
    try:
        return int(psutil.Process(process).memory_info().rss)
    except psutil.Error:
        return 0


def started_at(process: int) -> float | None:
    """When a process began, which tells it from a later one of the same number."""
    try:
        return float(psutil.Process(process).create_time())
    except psutil.Error:
        return None


def kill_group(child: int, started: float | None) -> None:
    """End a child with all its descendants, unless its number means another process."""
    now = started_at(child)
    if now is not None and started is not None and now != started:
        return
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
