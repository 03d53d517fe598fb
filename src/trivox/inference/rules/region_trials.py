"""Which rules for regions help, tried on tables of components: each case is labelled
once, while it is in memory.

Removing a component of a region removes what lies inside it and changes nothing else,
so sizes, overlaps with the reference and the enclosing components are enough to know
the Dice under any rules without touching a voxel again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trivox.datasets.labels import LabelScheme
from trivox.inference.rules.postprocess import MIN_GAIN, Postprocessing
from trivox.inference.rules.region_rules import (
    components_of,
    falls_back_exactly,
    inside_table,
    outer_first,
)
from trivox.volumes.volume import Array

SMALL_MM3 = (10, 25, 50, 75, 100, 200, 300, 500, 750, 1000)
"""Volumes tried for `remove_small` and `replace_small`."""
KINDS = ("largest_of_regions", "remove_small", "replace_small")


@dataclass(frozen=True, eq=False)
class RegionParts:
    """Components of a predicted region, `(n,)` each.

    case: number of the case; volume: mm3; counted: voxels that the reference does not
    ignore; hit: those in the reference's region; parents: number of an enclosing region
    -> the component of it that each lies in.
    """

    case: Array
    volume: Array
    counted: Array
    hit: Array
    parents: dict[int, Array]


@dataclass(frozen=True, eq=False)
class RegionEvidence:
    """What is kept of a case: components of each region as predicted, and voxels of
    each region in the reference.
    """

    parts: tuple[RegionParts, ...]
    reference: Array

    @property
    def dice(self) -> Array:
        """Dice of each region as predicted; NaN where it is absent from both."""
        hit = np.array([part.hit.sum() for part in self.parts])
        counted = np.array([part.counted.sum() for part in self.parts])
        with np.errstate(invalid="ignore"):
            return np.asarray(2 * hit / (counted + self.reference))


def region_evidence(
    prediction: Array, reference: Array, scheme: LabelScheme, *, voxel_mm3: float
) -> RegionEvidence:
    """Measure a case of label indices `(z, y, x)`, uncleaned, against its reference
    (-1: ignored).
    """
    table = scheme.region_table()
    inside = inside_table(scheme)
    # index -1 reads the last column
    known = np.append(table, np.zeros((len(table), 1), bool), axis=1)
    numbers: dict[int, Array] = {}
    parts: dict[int, RegionParts] = {}
    for row in outer_first(scheme):
        mask, numbers[row], sizes = components_of(prediction, table[row])
        component = numbers[row][mask].astype(np.int64) - 1
        truth = reference[mask]
        parents = {}
        for outer in parts:
            if inside[outer, row]:
                parents[outer] = np.zeros(len(sizes), np.int64)
                parents[outer][component] = numbers[outer][mask].astype(np.int64) - 1
        parts[row] = RegionParts(
            case=np.zeros(len(sizes), np.int64),
            volume=sizes * voxel_mm3,
            counted=np.bincount(component[truth >= 0], minlength=len(sizes)),
            hit=np.bincount(component[known[row][truth]], minlength=len(sizes)),
            parents=parents,
        )
    counts = np.bincount(reference[reference >= 0], minlength=table.shape[1])
    in_order = tuple(parts[row] for row in range(len(table)))
    return RegionEvidence(in_order, table.astype(np.int64) @ counts)


class RegionTrials:
    """Trials of all rules, one region after the other, outer ones first; for each its
    rules in the order of `KINDS`.

    A rule is kept if the mean Dice of its region rises and that of no other falls; of
    the volumes tried the best one, of equally good ones the smallest. A region absent
    from both counts 1, from one of the two 0 (the BraTS rule).
    """

    def __init__(self, cases: Sequence[RegionEvidence], scheme: LabelScheme) -> None:
        self._scheme = scheme
        self._order = outer_first(scheme)
        self._reference = np.stack([case.reference for case in cases])  # (case, region)
        self._parts: dict[int, RegionParts] = {}
        starts: dict[int, Array] = {}
        for row in self._order:
            parts = [case.parts[row] for case in cases]
            starts[row] = np.cumsum([0, *(len(part.volume) for part in parts)])
            self._parts[row] = _joined(parts, starts)
        self._measured: dict[str, Array] = {}

    def dice(self, rules: Postprocessing) -> Array:
        """Dice `(case, region)` after the rules; absent from both is 1."""
        key = rules.model_dump_json()
        if key not in self._measured:
            self._measured[key] = self._measure(rules)
        return self._measured[key]

    def _measure(self, rules: Postprocessing) -> Array:
        names = list(self._scheme.targets)
        ruled = rules.of_regions()
        result = np.empty(self._reference.shape)
        alive: dict[int, Array] = {}
        for row in self._order:
            parts = self._parts[row]
            stays = np.ones(len(parts.case), bool)
            for outer, parent in parts.parents.items():
                stays &= alive[outer][parent]
            rule = ruled.get(names[row])
            if rule is not None:
                stays = rule.kept(parts.case, parts.volume, stays)
            alive[row] = stays
            hit = np.bincount(parts.case, parts.hit * stays, len(result))
            counted = np.bincount(parts.case, parts.counted * stays, len(result))
            total = counted + self._reference[:, row]
            result[:, row] = np.where(total > 0, 2 * hit / np.maximum(total, 1), 1)
        return result

    def choose(self, rows: Array) -> tuple[Postprocessing, list[str]]:
        """The rules that help on these cases, and a line about each trial."""
        rules = Postprocessing()
        if not falls_back_exactly(self._scheme):
            return rules, [
                "no rule was tried: some regions overlap without a label for what is "
                "left when one is removed"
            ]
        notes: list[str] = []
        names = list(self._scheme.targets)
        for row in self._order:
            for kind in KINDS:
                rules, lines = self._best(rules, kind, row, names[row], rows)
                notes += lines
        return rules, notes

    def _best(
        self, rules: Postprocessing, kind: str, row: int, name: str, rows: Array
    ) -> tuple[Postprocessing, list[str]]:
        """The rules with the best setting of one more kind for a region, or as they
        were.
        """
        before = self.dice(rules)[rows].mean(0)
        best: Postprocessing | None = None
        highest = before[row] + MIN_GAIN
        tried: list[tuple[Postprocessing, str]] = []
        for what, candidate in _candidates(rules, kind, name):
            after = self.dice(candidate)[rows].mean(0)
            others = np.delete(after, row) < np.delete(before, row) - 1e-9
            line = (
                f"{what}: {before[row]:.5f} -> {after[row]:.5f} {name} Dice on "
                "validation"
            )
            if others.any():
                line += ", another region falls"
            elif after[row] > highest:
                best = candidate
                highest = after[row]
            tried.append((candidate, line))
        notes = []
        for candidate, line in tried:
            verdict = "kept" if candidate is best else "left out"
            notes.append(f"{line}, {verdict}")
        return best or rules, notes


def _candidates(
    rules: Postprocessing, kind: str, name: str
) -> list[tuple[str, Postprocessing]]:
    """The rules with one more for a region, in every setting tried, mildest first; each
    with words for it.
    """
    if kind == "largest_of_regions":
        more = {kind: (*rules.largest_of_regions, name)}
        return [(f"largest component of {name}", rules.model_copy(update=more))]
    what = f"components of {name}" if kind == "remove_small" else f"{name} as a whole"
    candidates = []
    for least in SMALL_MM3:
        sizes = {**getattr(rules, kind), name: float(least)}
        candidate = rules.model_copy(update={kind: sizes})
        candidates.append((f"{what} below {least} mm3 removed", candidate))
    return candidates


def _joined(parts: Sequence[RegionParts], starts: dict[int, Array]) -> RegionParts:
    """Components of a region in all cases; starts: of each region so far, the number of
    each case's first component.
    """
    case = np.repeat(np.arange(len(parts)), [len(part.volume) for part in parts])
    parents = {}
    for outer in parts[0].parents:
        numbers = np.concatenate([part.parents[outer] for part in parts])
        parents[outer] = numbers + starts[outer][case]
    return RegionParts(
        case=case,
        volume=np.concatenate([part.volume for part in parts]),
        counted=np.concatenate([part.counted for part in parts]),
        hit=np.concatenate([part.hit for part in parts]),
        parents=parents,
    )
