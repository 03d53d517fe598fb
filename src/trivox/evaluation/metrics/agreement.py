"""What the parts of metrics.json say of one another: names that one part takes from
another, lists that belong together.

Each function takes a section whose values are of the right type and returns it as it
is; raises `ValueError` with what contradicts what. A file that was measured never does.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from trivox.errors import few

Section = TypeVar("Section", bound=Mapping[str, Any])


def agreeing_classes(section: Section) -> Section:
    """The section `classification`: scores, cases and rows know all classes, and no
    others.
    """
    classes = section["classes"]
    if len({*classes}) < len(classes):
        raise ValueError("classes: one is named twice")
    _require_all_classes(classes, section["summary"], "summary")
    for row in section["rows"]:
        _require_all_classes(classes, row["summary"], f"rows: {row['name']:.60}")
    for name, case in section["cases"].items():
        _require_known_case(classes, case, f"cases: {name:.60}")
    if section["resubstitution"] is not None and section["gap"] is None:
        raise ValueError("gap: is missing beside resubstitution")
    return section


def agreeing_curve(curve: Section) -> Section:
    """A reliability curve: as many values as bins, and one in each bin that is not
    empty.
    """
    counts = curve["count"]
    for name in ("confidence", "accuracy"):
        values = curve[name]
        if len(values) != len(counts):
            raise ValueError(f"{name}: has {len(values)} bins, count {len(counts)}")
        pairs = zip(counts, values, strict=True)
        if any(count and value is None for count, value in pairs):
            raise ValueError(f"{name}: is missing in a bin that is not empty")
    return curve


def agreeing_counts(*order: str) -> Callable[[Section], Section]:
    """A check of counts that follow one another: each is part of the next."""

    def check(section: Section) -> Section:
        for part, whole in pairwise(order):
            if section[part] > section[whole]:
                raise ValueError(f"{part}: is no part of {whole}")
        return section

    return check


def _require_all_classes(
    classes: Sequence[str], summary: Mapping[str, Any], where: str
) -> None:
    """Raise unless scores by class and the confusion are about `classes`."""
    for part in ("support", "recall", "precision"):
        _require_names(classes, summary[part], f"{where}: {part}")
    confusion = summary["confusion"]
    lengths = {len(confusion), *map(len, confusion)}
    if lengths != {len(classes)}:
        raise ValueError(f"{where}: confusion is not of {len(classes)} classes")


def _require_known_case(
    classes: Sequence[str], case: Mapping[str, Any], where: str
) -> None:
    """Raise unless a case was answered with one of `classes`."""
    _require_names(classes, case["probabilities"], f"{where}: probabilities")
    for part in ("class", "answer"):
        name = case[part]
        if name not in classes and not (part == "class" and name is None):
            raise ValueError(f"{where}: {part} is none of the classes")


def _require_names(classes: Sequence[str], given: Collection[str], where: str) -> None:
    different = sorted({*classes} ^ {*given})
    if different:
        raise ValueError(f"{where}: not those of classes ({few(different):.60})")
