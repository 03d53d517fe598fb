"""Two processes and one folder: who writes what there, so that a second one waits or is
refused.

Each process that writes leaves a hidden file with its name, which it keeps locked: the
system frees the lock when the process ends, however it ends.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from errno import EACCES, EAGAIN, EDEADLK, EPERM, EROFS
from pathlib import Path
from secrets import token_hex
from socket import gethostname
from typing import IO, TypedDict

from trivox.errors import BusyError, ResourceError, few
from trivox.files import FORGOTTEN_SECONDS, runs, this_machine

LOCK = ".trivox-lock"
"""Held for moments, while records are read and written."""
CLAIM = ".trivox-writes-"
READ = ".trivox-reads-"
"""Beginnings of the names of the files of each process that writes, or reads for long."""
FAR = 1 << 30
"""Byte that is locked where a lock keeps others from reading (Windows)."""
PAUSE = 0.02
WAIT = 0.5
"""Seconds between two looks: at a lock, at what another process does."""
TAKEN = (EACCES, EAGAIN, EDEADLK)
READ_ONLY = (EACCES, EPERM, EROFS)
"""Errors of a lock that another process holds, and of a place where nobody writes."""

Say = Callable[[str], None]


def _unsaid(line: str) -> None:
    """Nobody listens."""


class Claim(TypedDict):
    """Who writes what; names: of the cases, None: everything in the folder."""

    verb: str
    process: int
    machine: str
    host: str
    since: str
    names: list[str] | None


class NoLocksError(OSError):
    """The file system or the rights allow no locks."""


@contextmanager
def claimed(
    folder: Path,
    verb: str,
    names: Collection[str] | None = None,
    *,
    wait: bool = False,
    say: Say = _unsaid,
) -> Iterator[None]:
    """Be the only process that writes what has these `names` in `folder`, or all of it.

    wait: until another one is done, which is said once; otherwise `BusyError` names it.
    Where there can be no locks, that is said and the work goes on. Raises
    `ResourceError` where nothing can be written.
    """
    with ExitStack() as held:
        try:
            if not folder.exists():
                folder.mkdir(parents=True, exist_ok=True)
                held.callback(_remove_empty, folder)
            _claim(folder, verb, names, held, wait=wait, say=say)
        except NoLocksError as error:
            if error.errno not in READ_ONLY:
                say(
                    f"{folder}: files cannot be locked here ({error.strerror}); let no "
                    "other process write there"
                )
        except OSError as error:
            raise ResourceError(
                f"{folder}: cannot be written ({error.strerror or error}); check the "
                "disk and its rights"
            ) from error
        yield


@contextmanager
def reading(folder: Path, verb: str, names: Collection[str]) -> Iterator[None]:
    """Let other processes know that what has these `names` in `folder` is read, so that
    it is not replaced meanwhile; any number may. Where there can be no locks, nobody
    knows.
    """
    with ExitStack() as held:
        with suppress(NoLocksError), alone(folder):
            _rival(folder, names, READ)  # the files of dead ones go
            _leave(folder, verb, names, held, READ)
        yield


def require_unread(folder: Path, names: Collection[str]) -> None:
    """Raise `BusyError` if another process reads what is going to be replaced."""
    with alone(folder):
        other = _rival(folder, names, READ)
    if other is not None:
        of_them = sorted({*names} & {*(other["names"] or names)})
        raise BusyError(
            f"{folder}: {few(of_them)} would be replaced, but {_described(other, READ)}; "
            "wait for it, or choose another --out"
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """For moments, be the only process that reads and writes records in `folder`."""
    file = folder / LOCK
    try:
        opened = _enter(file)
    except NoLocksError:
        yield
        return
    try:
        yield
    finally:
        _remove(file, opened)


def _claim(
    folder: Path,
    verb: str,
    names: Collection[str] | None,
    held: ExitStack,
    *,
    wait: bool,
    say: Say,
) -> None:
    """Leave a file that says who writes; `held` removes it."""
    silent = False
    while True:
        with alone(folder):
            other = _rival(folder, names)
            if other is None:
                _leave(folder, verb, names, held, CLAIM)
                return
        if not wait:
            raise BusyError(
                f"{folder}: {_described(other)}; wait for it, or choose another --out"
            )
        if not silent:
            say(f"{folder}: {_described(other)}; waiting for it")
            silent = True
        time.sleep(WAIT)


def _leave(
    folder: Path,
    verb: str,
    names: Collection[str] | None,
    held: ExitStack,
    prefix: str,
) -> None:
    """Leave the file of this process; `held` removes it."""
    file = folder / f"{prefix}{this_machine()}-{os.getpid()}-{token_hex(4)}"
    opened = _locked(file)
    assert opened is not None  # nobody else knows the name
    held.callback(_remove, file, opened)
    _write_claim(opened, verb, names)


def _write_claim(opened: IO[bytes], verb: str, names: Collection[str] | None) -> None:
    claim = Claim(
        verb=verb,
        process=os.getpid(),
        machine=this_machine(),
        host=gethostname(),
        since=datetime.now().astimezone().isoformat(timespec="seconds"),
        names=None if names is None else sorted(names),
    )
    opened.write(json.dumps(claim).encode())
    opened.flush()


def _rival(
    folder: Path, names: Collection[str] | None, prefix: str = CLAIM
) -> Claim | None:
    """Another process that writes (or reads) the same; files of dead ones are removed."""
    for file in sorted(folder.glob(f"{prefix}*")):
        if not _is_alive(file):
            with suppress(OSError):
                file.unlink()
            continue
        claim = _read_claim(file)
        if claim is None or (prefix == READ and _is_mine(claim)):
            continue
        others = claim["names"]
        if names is None or others is None or not set(others).isdisjoint(names):
            return claim
    return None


def _is_mine(claim: Claim) -> bool:
    return (claim["machine"], claim["process"]) == (this_machine(), os.getpid())


def _read_claim(file: Path) -> Claim | None:
    try:
        claim: Claim = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    whole = isinstance(claim, dict) and Claim.__annotations__.keys() <= claim.keys()
    return claim if whole else None


def _is_alive(file: Path) -> bool:
    """Whether the process that wrote a claim still runs."""
    try:
        opened = _locked(file, create=False)
    except NoLocksError:
        return _may_be_alive(file)
    except FileNotFoundError:
        return False
    if opened is None:
        return True
    opened.close()
    return False


def _may_be_alive(file: Path) -> bool:
    """The same where locks say nothing: by its number, on another machine by age."""
    claim = _read_claim(file)
    if claim is not None and claim["machine"] == this_machine():
        return runs(claim["process"])
    with suppress(OSError):
        return time.time() - file.stat().st_mtime < FORGOTTEN_SECONDS
    return False


def _described(claim: Claim | None, prefix: str = CLAIM) -> str:
    assert claim is not None
    done = "written" if prefix == CLAIM else "read"
    since = claim["since"][:16].replace("T", " ")
    return (
        f"is being {done} by process {claim['process']} on {claim['host']} since "
        f"{since} (trivox {claim['verb']})"
    )


# -- locks of the system ---------------------------------------------------------------
def _enter(file: Path) -> IO[bytes]:
    """Wait for the lock of a file that its holder removes."""
    while True:
        opened = _locked(file)
        if opened is not None:
            with suppress(OSError):
                if os.path.samestat(os.fstat(opened.fileno()), file.stat()):
                    return opened
            opened.close()  # it was removed while we waited
        time.sleep(PAUSE)


def _locked(file: Path, *, create: bool = True) -> IO[bytes] | None:
    """A file under a lock, None if another process holds it; raises `NoLocksError`."""
    flags = os.O_RDWR | (os.O_CREAT if create else 0)
    try:
        opened = os.fdopen(os.open(file, flags, 0o666), "r+b", buffering=0)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise NoLocksError(error.errno, error.strerror) from error
    try:
        _lock(opened.fileno())
    except OSError as error:
        opened.close()
        if error.errno in TAKEN:
            return None
        raise NoLocksError(error.errno, error.strerror) from error
    return opened


def _lock(descriptor: int) -> None:
    """Raises `OSError` at once where another process holds the lock."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_empty(folder: Path) -> None:
    """Leave no folder in which nothing was written after all."""
    with suppress(OSError):
        folder.rmdir()


def _remove(file: Path, opened: IO[bytes]) -> None:
    """Free a lock. The file goes first, so that nobody takes a lock that is gone; where
    what is open cannot be removed, nobody else has it open either.
    """
    with suppress(OSError):
        file.unlink()
    opened.close()
    if sys.platform == "win32":
        with suppress(OSError):
            file.unlink()
