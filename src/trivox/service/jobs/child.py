"""A prediction as a process of its own: its crash, its memory and its time are not those
of the service.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from trivox.errors import DataError, InterruptedTrainingError
from trivox.files import this_machine, write_text
from trivox.service.pseudonyms import scrubbed

LOOK = 0.1
"""Seconds between two looks at the process."""
PATIENCE = 10.0
"""Seconds that a process has to end after it was asked to."""
TAIL = 1 << 16
"""Bytes of its last words that are read."""


@dataclass(frozen=True)
class Limits:
    """When a process is ended.

    seconds: of its life; stopped: whether the service is asked to stop; lost: whether
    another process has taken over the work.
    """

    seconds: float
    stopped: Callable[[], bool]
    lost: Callable[[], bool]


def run_child(
    command: Sequence[str],
    log: Path,
    limits: Limits,
    *,
    started: Callable[[str], None],
    secrets: Iterable[str] = (),
) -> None:
    """Run a command; raises `DataError` with its last line if it fails, and
    `InterruptedTrainingError` if it was ended so that the service can stop.

    started: is told what `end_orphan` takes; secrets: what must not stand in the log.
    """
    raw = log.with_name(f".raw-{log.name}")
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with raw.open("wb") as written:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                started(_identity(process.pid))
                ended = _wait(process, limits)
            finally:
                _end_group(process)
        lines = _last_words(raw, list(secrets))
    finally:
        raw.unlink(missing_ok=True)
    write_text(log, "".join(f"{line}\n" for line in lines))
    _judge(process.returncode, ended, lines)


def _wait(process: subprocess.Popen[bytes], limits: Limits) -> str:
    """Until it ends, or has to; why it had to."""
    end = time.monotonic() + limits.seconds
    while process.poll() is None:
        if limits.stopped() or limits.lost():
            return "stopped"
        if time.monotonic() > end:
            return f"took longer than its {limits.seconds:g} s"
        time.sleep(LOOK)
    return ""


def _judge(code: int, ended: str, lines: Sequence[str]) -> None:
    if ended == "stopped":
        raise InterruptedTrainingError(
            "the prediction was stopped and will be repeated"
        )
    if ended:
        raise DataError(f"the prediction {ended}")
    if code:
        last = next((line for line in reversed(lines) if line), "it said nothing")
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        raise DataError(f"the prediction failed ({how}): {last[:300]}")


def _last_words(file: Path, secrets: Sequence[str]) -> list[str]:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - TAIL))
        text = opened.read().decode("utf-8", "replace")
    return [scrubbed(line, secrets) for line in text.splitlines()]


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started, with some time to tidy up."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    _kill_group(process.pid)
    process.wait()


def _signal_group(number: int, what: int) -> None:
    with suppress(OSError):
        if sys.platform == "win32":
            os.kill(number, what)
        else:
            os.killpg(number, what)


def _kill_group(number: int) -> None:
    """At once; nothing where the group is gone."""
    if sys.platform != "win32":
        _signal_group(number, signal.SIGKILL)


def _identity(number: int) -> str:
    """A process, so that no other one of the same number is taken for it."""
    with suppress(psutil.Error):
        return f"{this_machine()} {number} {psutil.Process(number).create_time():.2f}"
    return ""


def end_orphan(identity: str) -> None:
    """End the prediction of a service that was killed, if it still runs here."""
    machine, _, rest = identity.partition(" ")
    number, _, _ = rest.partition(" ")
    if machine != this_machine() or not number.isdecimal():
        return
    if _identity(int(number)) == identity:
        _signal_group(int(number), signal.SIGTERM)
        _await_end(int(number), identity)
        _kill_group(int(number))


def _await_end(number: int, identity: str) -> None:
    end = time.monotonic() + PATIENCE
    while _identity(number) == identity and time.monotonic() < end:
        time.sleep(LOOK)
