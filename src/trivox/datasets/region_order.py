"""Whether overlapping regions survive being painted into one label map, one after the
other.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path

from trivox.datasets.labels import LabelScheme
from trivox.errors import LabelError

KEY = "regions_class_order"
MOST = 6
"""Regions of which every order is tried, beside that by size."""


def require_paintable(labels: LabelScheme, *, where: Path | str) -> LabelScheme:
    """`labels`; raises `LabelError` naming `where` if what a perfect network says of its
    regions would be painted as something else, with an order that works if there is one.
    """
    lost = _misplaced(labels)
    if not lost:
        return labels
    named = (
        f"{where}: '{KEY}' {[*labels.region_order]} does not fit the regions: {lost}"
    )
    better = working_order(labels.regions)
    if better is None:
        raise LabelError(
            f"{named}; no order does, since regions overlap without one lying inside "
            "the other: declare labels that exclude each other"
        )
    names, values = better
    listed = (
        "" if names == [*labels.regions] else f"list them as {', '.join(names)} and "
    )
    raise LabelError(f'{named}; {listed}write "{KEY}": {values}')


def working_order(
    regions: Mapping[str, Sequence[int]],
) -> tuple[list[str], list[int]] | None:
    """Names of regions in an order of painting, and the value that each is painted as,
    which keep every voxel in its regions; None if there is no such order.
    """
    by_size = sorted(regions, key=lambda name: -len(set(regions[name])))
    orders = [[*regions], by_size]
    if len(regions) <= MOST:
        orders += [[*order] for order in permutations(regions)]
    for names in orders:
        values = _values_of(names, regions)
        ordered = {name: tuple(regions[name]) for name in names}
        if not _misplaced(_scheme(ordered, values)):
            return names, values
    return None


def _values_of(names: Sequence[str], regions: Mapping[str, Sequence[int]]) -> list[int]:
    """For each region a value that no region painted later holds, if it has one."""
    values = []
    for place, name in enumerate(names):
        later = set[int]().union(*(regions[other] for other in names[place + 1 :]))
        free = sorted(set(regions[name]) - later)
        values.append((free or sorted(regions[name]))[0])
    return values


def _scheme(regions: dict[str, tuple[int, ...]], order: Sequence[int]) -> LabelScheme:
    """Labels with these regions whose values are numbered from 1, as large as they may
    be.
    """
    present = sorted(set[int]().union(*regions.values()))
    number = {value: place for place, value in enumerate(present, start=1)}
    return LabelScheme(
        labels={str(place): place for place in number.values()},
        regions={
            name: tuple(number[value] for value in values)
            for name, values in regions.items()
        },
        region_order=tuple(number[value] for value in order),
    )


def _misplaced(labels: LabelScheme) -> str:
    """What becomes of the first value that is painted as one of other regions; empty if
    none is.
    """
    if labels.exclusive:
        return ""
    table = labels.region_table()  # (region, index): a voxel of each value
    painted = labels.paint_regions(table)
    names = [*labels.targets]
    for index, value in enumerate(labels.values):
        after = table[:, painted[index]]
        wrong = [
            name
            for name, is_in, comes_in in zip(names, table[:, index], after, strict=True)
            if is_in != comes_in
        ]
        if wrong:
            written = labels.values[painted[index]]
            where = "is not in" if table[names.index(wrong[0]), index] else "is in"
            return (
                f"a voxel of value {value} would be written as {written}, which {where} "
                f"'{wrong[0]}'"
            )
    return ""
