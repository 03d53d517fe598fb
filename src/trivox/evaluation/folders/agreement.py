"""Whether two measurements of the same files give the same numbers."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from trivox.evaluation.folders.labels import names_in

RELATIVE = 1e-6
"""What rounding in another version of a library may make of a number."""
ABSOLUTE = 1e-9

INTERVALS = ("ci95", "method", "median_ci95")
"""What a statistic says of its intervals."""

Row = Mapping[str, Any]
Summary = Mapping[str, Row]
Leaf = str | float | bool | None
"""What has no parts."""


def differences(says: Any, is_so: Any, where: str = "") -> Iterator[str]:
    """Where two contents of JSON differ, and how, a line each; numbers up to rounding."""
    before = dict(leaves(says, where))
    now = dict(leaves(is_so, where))
    for place in names_in([before, now]):
        one = before.get(place)
        other = now.get(place)
        if not _same(one, other):
            claim = _shown(one)
            fact = _shown(other)
            yield f"{place} says {claim}, the files give {fact}"


def leaves(content: Any, where: str = "") -> Iterator[tuple[str, Leaf]]:
    """All values without parts, and where each stands."""
    if isinstance(content, Mapping):
        before = f"{where}: " if where else ""
        for name, value in content.items():
            yield from leaves(value, f"{before}{name}")
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
    for row in summary.values():
        for value in row.values():
            if _has_interval(value) and "method" not in value:
                return False
    return True


def without_intervals(summary: Summary) -> Summary:
    """A summary without what is said of intervals."""
    others = {}
    for target, row in summary.items():
        others[target] = {name: _without_interval(row[name]) for name in row}
    return others


def _is_statistic(value: Any) -> bool:
    """Whether a value of a summary is one, not a count."""
    return isinstance(value, Mapping)


def _has_interval(value: Any) -> bool:
    return _is_statistic(value) and bool(value.get("ci95"))


def _without_interval(value: Any) -> Any:
    if not _is_statistic(value):
        return value
    return {name: value[name] for name in value if name not in INTERVALS}


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
