"""Whether two measurements of the same files give the same numbers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

RELATIVE = 1e-6
"""What rounding in another version of a library may make of a number."""
ABSOLUTE = 1e-9

Place = str
Leaf = str | float | bool | None
"""What has no parts."""


def differences(says: Any, is_so: Any, where: Place = "") -> Iterator[str]:
    """Where two contents of JSON differ, and how; numbers up to rounding."""
    before = dict(leaves(says, where))
    now = dict(leaves(is_so, where))
    places = dict.fromkeys([*before, *now])
    for place in places:
        one = before.get(place)
        other = now.get(place)
        if not _same(one, other):
            claim = _shown(one)
            fact = _shown(other)
            yield f"{place} says {claim}, the files give {fact}"


def leaves(content: Any, where: Place = "") -> Iterator[tuple[Place, Leaf]]:
    """All values without parts, and where each stands."""
    if isinstance(content, Mapping):
        for name, value in content.items():
            inside = f"{where}: {name}" if where else str(name)
            yield from leaves(value, inside)
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content, start=1):
            yield from leaves(value, f"{where}, number {number}")
    else:
        yield where, content


def numbers_in(content: Any) -> int:
    """How many numbers there are."""
    return sum(_is_number(value) for _, value in leaves(content))


def _is_number(value: Leaf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _same(one: Leaf, other: Leaf) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return one == other


def _shown(value: Leaf) -> str:
    """A value for a message, short."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "nothing"
    return f"{value!s:.40}"
