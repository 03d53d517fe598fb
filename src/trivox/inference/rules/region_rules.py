"""Rules for one region: components that are too small, a region too small as a whole,
all but the largest component.

A voxel that leaves a region falls back to what encloses it: enhancing tumour becomes
necrosis, because it stays in the tumour core; what leaves the whole tumour becomes
background. Rules only ever take away: no region gains a voxel.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.volumes.components import connected
from trivox.volumes.volume import Array

ROUNDING = 1e-4
"""Relative error of a voxel's volume as headers store it; a component of exactly the
limit is kept.
"""


@dataclass(frozen=True)
class RegionRule:
    """What to do with a region, in this order; a volume of 0 mm3 does nothing.

    largest: keep its largest component only; remove_small: drop components below this
    volume in mm3; replace_small: drop the region if what is left is below this volume
    in mm3.
    """

    largest: bool = False
    remove_small: float = 0
    replace_small: float = 0

    def kept(self, case: Array, volume: Array, alive: Array) -> Array:
        """Which components stay `(n,)` bool; n components of any number of cases, each
        case decided on its own.

        case: number of the case of each; volume: mm3; alive: those still there. Of
        equally large ones the first stays.
        """
        stays = alive.copy()
        if self.largest:
            order = np.flatnonzero(stays)
            # stable: the first of equals stays first
            order = order[np.lexsort((-volume[order], case[order]))]
            leads = np.diff(case[order], prepend=-1) != 0
            stays[order[~leads]] = False
        if self.remove_small:
            stays &= volume >= self.remove_small * (1 - ROUNDING)
        if self.replace_small:
            total = np.bincount(
                case[stays], weights=volume[stays], minlength=case.max(initial=0) + 1
            )
            stays &= total[case] >= self.replace_small * (1 - ROUNDING)
        return stays


def outer_first(scheme: LabelScheme) -> list[int]:
    """Numbers of the targets, those of more labels first: a rule for a region acts
    before those for what is inside it.
    """
    sizes = [len(indices) for indices in scheme.targets.values()]
    return sorted(range(len(sizes)), key=lambda row: -sizes[row])


def inside_table(scheme: LabelScheme) -> Array:
    """`(target, target)` bool: `[t, r]` says that all labels of r belong to t; every
    target is inside itself.
    """
    table = scheme.region_table()
    return np.asarray((table[None] <= table[:, None]).all(2))


def fallback_table(scheme: LabelScheme) -> Array:
    """The index `(target, index)` that a voxel of each index takes when it leaves a
    target; int16.

    It leaves what is inside the target as well; the others of its regions are painted
    as in a prediction. Where no label lies in those alone, it becomes background.
    """
    table = scheme.region_table()
    result = np.tile(np.arange(table.shape[1], dtype=np.int16), (len(table), 1))
    for row, inside in enumerate(inside_table(scheme)):
        remaining = table & ~inside[:, None]
        painted = np.zeros(table.shape[1], np.int16)
        if not scheme.exclusive:
            painted = scheme.paint_regions(remaining)
        gains = (table[:, painted] & ~remaining).any(0)
        falls_to = np.where(gains, 0, painted)
        result[row] = np.where(table[row], falls_to, result[row])
    return result


def falls_back_exactly(scheme: LabelScheme) -> bool:
    """Whether a voxel that leaves a region stays in all its others, but for those
    inside; true for nested regions.
    """
    table = scheme.region_table()
    inside = inside_table(scheme)
    equals = inside & inside.T & ~np.eye(len(inside), dtype=bool)
    if equals.any():  # two regions of the same labels
        return False
    for row, fallback in enumerate(fallback_table(scheme)):
        member = table[row]
        after = table[:, fallback[member]]
        wanted = table & ~inside[row][:, None]
        if not np.array_equal(after, wanted[:, member]):
            return False
    return True


def clean_regions(
    labels: Array,
    scheme: LabelScheme,
    rules: dict[str, RegionRule],
    *,
    voxel_mm3: float,
) -> Array:
    """Label indices `(z, y, x)` after the rules of each region, outer ones first; the
    same array if nothing is removed.
    """
    fallback = fallback_table(scheme)
    table = scheme.region_table()
    result = labels
    for row, rule in _in_order(scheme, rules):
        member, parts, sizes = components_of(result, table[row])
        if not len(sizes):
            continue
        one_case = np.zeros(len(sizes), np.int64)
        alive = np.ones(len(sizes), bool)
        stays = rule.kept(one_case, sizes * voxel_mm3, alive)
        if not stays.all():
            result = result.copy()
            inside = result[member]
            remains = stays[parts[member] - 1]
            result[member] = np.where(remains, inside, fallback[row][inside])
    return result


def _in_order(
    scheme: LabelScheme, rules: dict[str, RegionRule]
) -> Iterator[tuple[int, RegionRule]]:
    names = list(scheme.targets)
    for row in outer_first(scheme):
        if names[row] in rules:
            yield row, rules[names[row]]


def components_of(labels: Array, member: Array) -> tuple[Array, Array, Array]:
    """Of the labels for which `member` `(index,)` is true: mask, 26-connected
    components from 1 on, voxels of each.
    """
    mask = member[labels]
    parts = connected(mask)
    return mask, parts, np.bincount(parts[mask], minlength=1)[1:]
