"""Cross-validation folds by patient, stratified by class; or the validation split that
a dataset declares.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from trivox.datasets.dataset import Case
from trivox.errors import DataError, RecipeError


@dataclass(frozen=True)
class Split:
    """Names of the cases to train on and to validate on, each sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_splits(
    cases: Sequence[Case], *, folds: int = 5, seed: int = 12345
) -> tuple[Split, ...]:
    """Deterministic folds in which all cases of a patient stay together, whatever the
    order of `cases`.

    A declared validation split: exactly one fold, which validates on it. Otherwise
    fewer patients than folds: one fold a patient, and

    - without classes: if all patients have equally many cases, the folds of
      scikit-learn's `KFold(folds, shuffle=True,
      random_state=seed)` over the sorted patients; with one case each, those of nnU-Net. If not, patients go, largest
      first, to the fold with the fewest cases.
    - with classes: the patients of each class are dealt out evenly; one of several
      classes counts with the rarest, and
      "not known" is a class here. With one case a patient, folds differ by at most one case in each class and at most
      one in all. A class of two patients or more is in the training cases of every fold.

    Raises `DataError` for fewer than two patients, or a patient on both sides of a
    declared split.
    """
    if any(case.split == "validation" for case in cases):
        return (_declared(cases),)
    if folds < 2:
        raise RecipeError(
            f"folds={folds}: cross-validation needs at least 2; set folds to 2 or more"
        )
    patients = list(_cases_by_patient(cases).values())
    if len(patients) < 2:
        raise DataError(
            f"{len(cases)} cases of {len(patients)} patients cannot be split; at least 2 patients are needed"
        )
    order = np.random.RandomState(seed).permutation(
        len(patients)
    )  # nnU-Net's generator
    shuffled = [patients[i] for i in order]
    count = min(folds, len(patients))
    classes = {case.name: case.class_name for case in cases}
    stratified = any(name is not None for name in classes.values())
    parts = (
        _deal(shuffled, classes, count) if stratified else _distribute(shuffled, count)
    )
    everything = {case.name for case in cases}
    return tuple(
        Split(tuple(sorted(everything - part)), tuple(sorted(part))) for part in parts
    )


def _declared(cases: Sequence[Case]) -> Split:
    """The declared split, both sides sorted."""
    sides = {case.name: case.split for case in cases}
    for patient, names in _cases_by_patient(cases).items():
        if len({sides[name] for name in names}) > 1:
            told = ", ".join(f"{name} ({sides[name]})" for name in names[:6])
            raise DataError(
                f"patient '{patient}' is on both sides of the declared split: {told}; move all to one side"
            )
    train, validation = (
        tuple(sorted(name for name, split in sides.items() if split == side))
        for side in ("train", "validation")
    )
    if not train:
        raise DataError(
            f"all {len(validation)} cases are declared as validation; training needs some"
        )
    return Split(train, validation)


def _cases_by_patient(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Names of each patient's cases; patients sorted by their first case."""
    groups: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.name):
        groups.setdefault(case.patient, []).append(case.name)
    return groups


def _deal(
    patients: list[list[str]], classes: dict[str, str | None], folds: int
) -> list[set[str]]:
    """Each class's patients, largest first, to the fold with the fewest cases of that
    class, then of all.
    """
    parts: list[set[str]] = [set() for _ in range(folds)]
    for group in _by_rarest_class(patients, classes):
        held = [0] * folds
        for names in sorted(group, key=len, reverse=True):
            fold = min(range(folds), key=lambda fold: (held[fold], len(parts[fold])))
            parts[fold].update(names)
            held[fold] += len(names)
    return parts


def _by_rarest_class(
    patients: list[list[str]], classes: dict[str, str | None]
) -> Iterator[list[list[str]]]:
    """Patients in groups of one class, rarest class first; a known class goes before an
    unknown one.
    """
    counts = Counter(classes.values())
    rank = {name: (name is None, counts[name], name or "") for name in counts}
    groups: dict[str | None, list[list[str]]] = {}
    for names in patients:
        rarest = min((classes[name] for name in names), key=lambda name: rank[name])
        groups.setdefault(rarest, []).append(names)
    for name in sorted(groups, key=lambda name: rank[name]):
        yield groups[name]


def _distribute(patients: list[list[str]], folds: int) -> list[set[str]]:
    if len({len(names) for names in patients}) == 1:
        chunks = np.array_split(
            np.arange(len(patients)), folds
        )  # the first ones are larger, as in KFold
        return [{name for i in chunk for name in patients[i]} for chunk in chunks]
    parts: list[set[str]] = [set() for _ in range(folds)]
    for names in sorted(patients, key=len, reverse=True):
        min(parts, key=len).update(names)
    return parts
