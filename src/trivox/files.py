"""Writing files so that a killed process never leaves half of one, and reading JSON
with errors that instruct.
"""

import hashlib
import json
import math
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from trivox.errors import FormatError, ResourceError
from trivox.memory import memory_ran_out, no_memory

TEMPORARY = re.compile(r"\.tmp-(?:(h[0-9a-f]{7})-)?(\d{1,9})-.+", re.DOTALL)
"""The machine and the process that write, and the name that the file or folder will
have. Before 0.2 no machine was named.
"""
FORGOTTEN_SECONDS = 86_400
"""Age at which nobody is taken to write a file any more, where nobody can be asked: on
another machine.
"""
HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
"""How JSON writes halves of characters, of which two make one."""


@lru_cache(maxsize=1)
def this_machine() -> str:
    """A short name for the processes that this one can see: those of this machine, or
    of its container.
    """
    seen = ""
    with suppress(OSError):  # not everywhere
        seen = str(Path("/proc/self/ns/pid").readlink())
    return (
        "h" + hashlib.sha256(f"{socket.gethostname()} {seen}".encode()).hexdigest()[:7]
    )


@contextmanager
def in_one_line() -> Iterator[None]:
    """Around a whole verb: what the system says of a file or of memory becomes a
    `ResourceError`.
    """
    try:
        yield
    except OSError as error:
        where = "a file" if error.filename is None else error.filename
        raise ResourceError(
            f"{where}: cannot be read or written ({error.strerror or error}); check "
            "its path, its rights and the disk"
        ) from error
    except (MemoryError, RuntimeError, ImportError) as error:
        if not memory_ran_out(error):
            raise
        raise no_memory(error) from error


def temporary_name(path: Path) -> Path:
    """What `path` is called while this process writes it: a dot in front, so that no
    listing shows it, all suffixes kept, so that formats are recognised.
    """
    return path.with_name(f".tmp-{this_machine()}-{os.getpid()}-{path.name}")


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that no longer run left half written in `folder`; what a
    living one writes, or one of another machine wrote a short time ago, and files of
    other names, stay.
    """
    for path in folder.glob(".tmp-*"):
        match = TEMPORARY.fullmatch(path.name)
        if match is None or _is_written(path, match[1], int(match[2])):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):  # another process was faster
                path.unlink()


def remove_path(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@lru_cache(maxsize=4096)
def _tidy(folder: Path) -> None:
    """`remove_leftovers` once in the life of this process."""
    remove_leftovers(folder)


def _is_written(path: Path, machine: str | None, process: int) -> bool:
    """Whether a process may still write a temporary file or folder."""
    if machine is None or machine == this_machine():
        return runs(process)
    newest = 0.0
    for part in (path, *path.rglob("*")):
        with suppress(OSError):
            newest = max(newest, part.lstat().st_mtime)
    return time.time() - newest < FORGOTTEN_SECONDS


def runs(process: int) -> bool:
    """Whether a process of that number runs here."""
    # loads slowly for what most commands never ask
    import psutil

    return bool(psutil.pid_exists(process))


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success sync it to disk and rename it to
    `path`.

    On any exception the temporary file is removed; what killed processes left in the
    folder is removed when it is first written to. Raises `ResourceError` where no file
    can be: in the place of a folder or a device, or under a name that is none.
    """
    temporary = _place_beside(path)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "check the disk and its rights"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _place_beside(path: Path) -> Path:
    """The temporary name of a file, in a folder that is there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _tidy(path.parent.absolute())
        temporary = temporary_name(path)
        taken = path.exists() and not path.is_file()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ResourceError(
            f"{path}: cannot be written ({reason}); choose another name"
        ) from error
    if taken:
        raise ResourceError(
            f"{path}: is a folder or a device and no file; choose another name"
        )
    return temporary


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically; what is no letter (bytes of a file's
    name that are no text) is escaped.
    """
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def plain_json(content: Any) -> Any:
    """Content as JSON knows it: NaN and infinity become null, what numpy made becomes
    numbers and lists.
    """
    if isinstance(content, dict):
        return {str(key): plain_json(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [plain_json(value) for value in content]
    if hasattr(content, "tolist"):  # numpy scalars and arrays
        return plain_json(content.tolist())
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, atomically; NaN becomes null, since JSON knows
    no NaN.
    """
    plain = plain_json(content)
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; raises `FormatError` naming the file if it is missing or
    malformed, or has one name twice in an object.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise FormatError(f"{path}: file not found; check the path") from error
    except (OSError, ValueError, MemoryError) as error:
        raise FormatError(
            f"{path}: not readable as JSON ({error}); repair or regenerate the file"
        ) from error


def read_object(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file, likewise; raises `FormatError` too if it holds
    anything else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise FormatError(
            f"{path}: holds no object with named fields; repair or regenerate the file"
        )
    return content


def parse_json(text: str) -> Any:
    """What JSON says; raises `ValueError` for anything that Python's reader does not
    take, half characters, and objects that have one name twice.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    if HALF_CHARACTER.search(text):
        # what stands for half a character can be written nowhere, but for a byte in the
        # name of a file that is no text
        json.dumps(content, ensure_ascii=False).encode("utf-8", "surrogateescape")
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; raises `ValueError` for two fields of one name."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two fields of one object are called {double[:60]!a}")
    return content


def replace_folder(new: Path, final: Path) -> None:
    """Move folder `new` to `final`, replacing what is there.

    Folders cannot be swapped in one step; between the two renames the old one is hidden
    as `.<final>.old`, where `surviving_folder` finds it after a crash.
    """
    for file in new.iterdir():
        if file.is_file():
            _sync(file)
    hidden = _aside(final)
    if final.exists():
        shutil.rmtree(hidden, ignore_errors=True)
        final.rename(hidden)
    new.rename(final)
    shutil.rmtree(hidden, ignore_errors=True)


def surviving_folder(final: Path) -> Path | None:
    """The folder that `replace_folder` left at `final`, or its predecessor if the
    process died in between.
    """
    # 0.1.0 wrote no dot; a name without one may be somebody's copy and is only read
    for folder in (final, _aside(final), final.with_name(f"{final.name}.old")):
        if folder.is_dir():
            return folder
    return None


def _aside(final: Path) -> Path:
    """What the old folder is called while it is replaced."""
    return final.with_name(f".{final.name}.old")


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final` that takes its place on success, and is
    removed on any exception: `final` holds all or nothing of what was written.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    _tidy(final.parent.absolute())
    temporary = temporary_name(final)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final` that gets its name on success, and is
    removed on any exception.

    The rename takes the place of an empty folder and fails on a filled one, whoever
    filled it meanwhile.
    """
    final = final.absolute()
    temporary = temporary_name(final)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.replace(final)
    except OSError as error:
        raise ResourceError(
            f"{final}: cannot be written ({error.strerror or error}); check the disk"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def file_hash(path: Path) -> str:
    """Hex sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(file: Path) -> None:
    """Bring a file's content to the disk; Windows does so only where it is open for
    writing, so that what is read-only (copied as such) is left alone.
    """
    if os.access(file, os.W_OK):
        with file.open("r+b") as written:
            os.fsync(written.fileno())
