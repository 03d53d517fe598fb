"""Whether two measurements of the same files give the same numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

RELATIVE = 1e-6
"""What rounding in another version of a library may make of a number."""
ABSOLUTE = 1e-9


def differences(says: Any, is_so: Any, where: str = "") -> Iterator[str]:
    """Where two contents of JSON differ, and how; numbers up to rounding."""
    if isinstance(says, Mapping) and isinstance(is_so, Mapping):
        for name in dict.fromkeys([*says, *is_so]):
            place = f"{where}: {name}" if where else str(name)
            yield from differences(says.get(name), is_so.get(name), place)
    elif _are_lists(says, is_so):
        pairs = zip(says, is_so, strict=True)
        for number, (one, other) in enumerate(pairs, start=1):
            yield from differences(one, other, f"{where}, number {number}")
    elif not _same(says, is_so):
        yield f"{where} says {_shown(says)}, the files give {_shown(is_so)}"


def numbers_in(content: Any) -> int:
    """How many numbers there are."""
    if isinstance(content, Mapping):
        return sum(numbers_in(value) for value in content.values())
    if isinstance(content, list | tuple):
        return sum(numbers_in(value) for value in content)
    return int(isinstance(content, int | float) and not isinstance(content, bool))


def _are_lists(says: Any, is_so: Any) -> bool:
    lists = isinstance(says, list | tuple) and isinstance(is_so, list | tuple)
    return lists and len(says) == len(is_so)


def _same(says: Any, is_so: Any) -> bool:
    numbers = all(isinstance(value, int | float) for value in (says, is_so))
    if numbers and not isinstance(says, bool):
        return math.isclose(says, is_so, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return bool(says == is_so)


def _shown(value: Any) -> str:
    """A value for a message, short."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_shown(each) for each in value[:4]) + "]"
    return "nothing" if value is None else f"{value!s:.40}"
