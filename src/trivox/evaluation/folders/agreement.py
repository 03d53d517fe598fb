"""Whether two measurements of the same files give the same numbers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

RELATIVE = 1e-6
"""What rounding in another version of a library may make of a number."""
ABSOLUTE = 1e-9

INTERVALS = ("ci95", "method", "median_ci95")
"""What a statistic says of its intervals."""

Summary = Mapping[str, Mapping[str, Any]]
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


def names_methods(summary: Summary) -> bool:
    """Whether a summary says of all its intervals by which method they were found."""
    return all("method" in row for row in _statistics(summary) if row.get("ci95"))


def without_intervals(summary: Summary) -> dict[str, dict[str, Any]]:
    """A summary without what is said of intervals."""
    others: dict[str, dict[str, Any]] = {}
    for target, row in summary.items():
        others[target] = {name: _without(value) for name, value in row.items()}
    return others


def _without(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: part for name, part in value.items() if name not in INTERVALS}


def _statistics(summary: Summary) -> Iterator[Mapping[str, Any]]:
    for row in summary.values():
        yield from (value for value in row.values() if isinstance(value, Mapping))


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
