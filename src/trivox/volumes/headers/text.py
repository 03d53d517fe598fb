"""Headers of lines of text: what their words may be, and which files they may name."""

import re
from pathlib import Path

from trivox.errors import FormatError, GeometryError
from trivox.volumes.placeholders import require_fetched

MOST_BYTES = 2**23
"""Of a header; those of segmentations with hundreds of segments have a tenth of it."""
FARTHEST = 1e12
"""More than any length or place, in any unit."""
MOST_FILES = 10_000
"""That an image may be spread over."""
PATTERN = re.compile(r"([^%]*)%(0?\d?)d([^%]*?)((?: +-?\d{1,6}){3,4}) *")
"""A printf pattern with one number, then its first and last value and the step."""
UNITS_MM = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "um": 0.001,
    "µm": 0.001,
    "μm": 0.001,
    "micron": 0.001,
    "microns": 0.001,
    "micrometer": 0.001,
}
"""Names of lengths, in mm; the two signs for micro look alike."""


def whole_numbers(text: str, *, what: str, count: int | None = None) -> list[int]:
    """Whole numbers with blanks between; raises `FormatError` for anything else."""
    words = text.split()
    if not all(re.fullmatch(r"[+-]?\d{1,18}", word, re.ASCII) for word in words):
        raise FormatError(
            f"{what} holds '{text[:60]}', no whole numbers; the header is damaged"
        )
    _require_count(words, what, count)
    return [int(word) for word in words]


def numbers(text: str, *, what: str, count: int | None = None) -> list[float]:
    """Finite numbers with blanks between; raises `FormatError` for other words,
    `GeometryError` for NaN and infinity.
    """
    words = text.split()
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise FormatError(
            f"{what} holds '{text[:60]}', no numbers; the header is damaged"
        ) from error
    if not all(abs(value) < FARTHEST for value in values):  # NaN compares false
        raise GeometryError(
            f"{what} holds '{text[:60]}', which is no length; repair the header"
        )
    _require_count(words, what, count)
    return values


def _require_count(words: list[str], what: str, count: int | None) -> None:
    if count is not None and len(words) != count:
        raise FormatError(
            f"{what} holds {len(words)} numbers where {count} belong; the header is "
            "damaged"
        )


def unit_mm(names: list[str]) -> float | None:
    """Length in mm of the unit that all axes share, 1 where none is named; None if it
    is not known.
    """
    given = {name.strip().lower() for name in names} - {"", "???", "?", "none"}
    if not given:
        return 1.0
    lengths = {UNITS_MM.get(name) for name in given}
    return lengths.pop() if len(lengths) == 1 else None


def one_beside(header: Path, name: str) -> Path:
    """The file of that name in the folder of a header; raises `FormatError` for one
    that may lie elsewhere or is not there.
    """
    name = name.removeprefix("./")
    if not name or name in (".", "..") or any(sign in name for sign in "/\\:\0"):
        raise FormatError(
            f"names the data file '{name[:80]}', which is not in its own folder; put "
            "both into one folder and write the bare name into the header"
        )
    path = header.parent / name
    require_fetched(path)
    if not path.is_file():
        raise FormatError(f"its data file {name[:80]} is not there; copy it too")
    return path


def files_beside(header: Path, words: str, lines: list[str]) -> tuple[Path, ...]:
    """The data files that a header names: one, a printf pattern, or the `lines` after
    `LIST`; all in its own folder.
    """
    if words.split()[:1] == ["LIST"]:
        names = [line.strip() for line in lines if line.strip()]
    else:
        names = _numbered(words)
    if not 0 < len(names) <= MOST_FILES:
        raise FormatError(
            f"names {len(names)} data files, 1 to {MOST_FILES} can be read; put the "
            "image into one file"
        )
    return tuple(one_beside(header, name) for name in names)


def _numbered(words: str) -> list[str]:
    """The names that a pattern stands for; of no pattern, the one name."""
    match = PATTERN.fullmatch(words)
    if match is None:
        return [words]
    before, width, after, limits = match.groups()
    first, last, step, *_ = (int(word) for word in limits.split())
    if step == 0 or abs((last - first) // step) > MOST_FILES:
        raise FormatError(
            f"the data files are numbered {limits.strip()}; repair the header"
        )
    count = range(first, last + (1 if step > 0 else -1), step)
    return [f"{before}{number:{width}d}{after}" for number in count]
