"""Whose the files are that lie where a verb is going to write.

What trivox wrote may be written over: a file of one of the kinds here shows by its
content that it is such a file. Anything else is somebody's own and is never touched;
verbs ask before they do any work.
"""

import errno
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trivox.errors import DataError, FormatError, ResourceError, few
from trivox.files import read_json, temporary_name

ADVICE = "choose another --out"
GENERATOR = b'<meta name="generator" content="trivox'
"""What every page of ours says of itself."""
OLD_PAGE = (
    b'<meta name="color-scheme" content="light dark">',
    b'<span class="badge">Research use only, not a medical device</span>',
)
"""What the pages of 0.1.0 have in common."""


@dataclass(frozen=True)
class Kind:
    """A kind of file that trivox writes.

    what: its name for people; wrote: whether a file is one, by its content.
    """

    what: str
    wrote: Callable[[Path], bool]


def _page(file: Path) -> bool:
    content = file.read_bytes()
    return GENERATOR in content or all(mark in content for mark in OLD_PAGE)


def object_with(*fields: str) -> Callable[[Path], bool]:
    """Whether a file is a JSON object that has these fields."""

    def holds(file: Path) -> bool:
        content = _json(file)
        return isinstance(content, dict) and content.keys() >= {*fields}

    return holds


def text_with(line: str) -> Callable[[Path], bool]:
    """Whether a file is a text in which `line` stands."""

    def holds(file: Path) -> bool:
        return line in file.read_text(encoding="utf-8", errors="replace")

    return holds


def _folds(file: Path) -> bool:
    content = _json(file)
    folds = content.get("folds") if isinstance(content, dict) else content
    if not isinstance(folds, list):
        return False
    return all(isinstance(fold, dict) and "train" in fold for fold in folds)


def _json(file: Path) -> object:
    """Content of a file, None if it is no JSON."""
    try:
        return read_json(file)
    except FormatError:
        return None


PAGE = Kind("report", _page)
CHECK = Kind("check", object_with("checked_cases", "codes", "findings"))
PLAN = Kind("plan", object_with("format_version", "task", "spacing", "reasons"))
COST = Kind("record of costs", object_with("settings", "measured"))
FORECAST = Kind("forecast of costs", object_with("settings", "rates"))
FINGERPRINT = Kind("fingerprint", object_with("dataset", "cases", "intensities"))
DATASET = Kind("saved dataset", object_with("root", "layout", "channels", "cases"))
METRICS = Kind("evaluation", object_with("convention", "cases", "summary"))
RANKING = Kind("ranking", object_with("convention", "models", "comparisons"))
RECIPE = Kind("recipe", object_with("preset", "network", "learning_rate"))
RUN = Kind("run", object_with("fold", "task"))
FOLDS = Kind("list of folds", _folds)
SOURCES = Kind("record of sources", object_with("cases", "channels", "labels"))
TRANSFER = Kind("report of a transfer", object_with("source"))
PRETRAINING = Kind("record of a pretraining", object_with("left_out", "validation_r2"))


@dataclass(frozen=True)
class Contents:
    """What a verb leaves in a folder.

    kinds: of the files that show who wrote them, by name; proofs: those among them
    that show the whole folder to be the verb's; others: names of whatever else it
    writes.
    """

    what: str
    kinds: Mapping[str, Kind] = field(default_factory=dict)
    proofs: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def require_file(out: Path, kind: Kind) -> None:
    """Raise in one line unless a file of `kind` can be written to `out`: `DataError`
    if that would be over something that is no such file, `ResourceError` if nothing
    can be written there.
    """
    with_reason(out, _require_file_place)
    _require_written(out, kind)


def require_folder(
    out: Path, contents: Contents, *, source: Path | None = None
) -> None:
    """Raise in one line unless a verb can write into the folder `out`: `DataError` if
    it would write over something that no such verb wrote, `ResourceError` if nothing
    can be written there.

    source: what the verb reads, which cannot be the folder itself.
    """
    require_folder_place(out)
    if source is not None and _same(out, source):
        raise DataError(f"{out}: is the input; {ADVICE}")
    for name, kind in contents.kinds.items():
        _require_written(out / name, kind)
    if any(is_there(out / name) for name in contents.proofs):
        return
    foreign = [name for name in contents.others if is_there(out / name)]
    if foreign:
        raise DataError(
            f"{out}: {few(foreign)} would be written over, and no {contents.what} of "
            f"trivox lies there; {ADVICE}"
        )


def require_new_folder(out: Path) -> None:
    """Raise `DataError` unless `out` is an empty folder or nothing at all, and
    `ResourceError` if nothing can be written there.
    """
    require_folder_place(out)
    if out.is_symlink():
        raise DataError(f"{out}: is a link; name a folder that is new or empty")
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; {ADVICE}, or remove it")


def require_folder_place(out: Path) -> None:
    """Raise in one line unless `out` is a folder, or can become one, that this process
    may write into.
    """
    with_reason(out, _require_folder_place)


def with_reason(out: Path, look: Callable[[Path], None]) -> None:
    """Look at a path; what the file system says against it becomes one line."""
    try:
        look(out)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ResourceError(
            f"{out}: cannot be written ({reason or error}); {ADVICE}"
        ) from error


def is_there(path: Path) -> bool:
    """Whether something has that name, be it a link that leads nowhere."""
    return os.path.lexists(path)


def names_there(out: Path, patterns: Iterable[str]) -> tuple[str, ...]:
    """Names in the folder `out`, if there is one, that are of any pattern."""
    if not out.is_dir():
        return ()
    entries = sorted(out.iterdir())
    wanted = tuple(patterns)
    return tuple(path.name for path in entries if any(map(path.match, wanted)))


def _require_file_place(out: Path) -> None:
    if out.is_dir():
        raise DataError(f"{out}: is a folder, not a file; name a file in it")
    if out.is_symlink():
        raise DataError(f"{out}: is a link; name a file itself")
    _try_to_write(out)


def _require_folder_place(out: Path) -> None:
    if out.is_dir():
        _try_to_write(out / "file")
    elif is_there(out):
        what = "a link that leads nowhere" if out.is_symlink() else "a file"
        raise DataError(f"{out}: is {what}, not a folder; {ADVICE}")
    else:
        _try_to_write(out)


def _try_to_write(path: Path) -> None:
    """Write an empty file for a moment where `path`, or the first folder on the way to
    it, would be made.
    """
    path = path.absolute()
    while not is_there(path.parent):
        _require_short(path)
        path = path.parent
    if not path.parent.is_dir():
        raise DataError(f"{path.parent}: is a file, not a folder; {ADVICE}")
    tried = temporary_name(path)
    os.close(os.open(tried, os.O_CREAT | os.O_WRONLY))
    tried.unlink(missing_ok=True)


def _require_short(path: Path) -> None:
    """Raise what the file system would say once the folder is there."""
    if len(os.fsencode(temporary_name(path).name)) > 255:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _require_written(file: Path, kind: Kind) -> None:
    """Raise `DataError` if a file is there and not of `kind`."""
    if not is_there(file):
        return
    plain = file.is_file() and not file.is_symlink()
    if not plain or not kind.wrote(file):
        raise DataError(
            f"{file}: is there, and is no {kind.what} that trivox wrote; {ADVICE}"
        )


def _same(out: Path, source: Path) -> bool:
    return out.is_dir() and source.exists() and out.samefile(source)
