"""Cross-validation folds by patient."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trivox.datasets.dataset import Case
from trivox.errors import DataError, RecipeError


@dataclass(frozen=True)
class Split:
    """Names of the cases to train on and to validate on, each sorted."""

    train: tuple[str, ...]
    validation: tuple[str, ...]


def make_splits(cases: Sequence[Case], *, folds: int = 5, seed: int = 12345) -> tuple[Split, ...]:
    """Deterministic folds in which all cases of a patient stay together, whatever the order of `cases`.

    If all patients have equally many cases, these are the folds of scikit-learn's `KFold(folds, shuffle=True,
    random_state=seed)` over the sorted patients; with one case each, those of nnU-Net. Otherwise patients go, largest
    first, to the fold with the fewest cases. Fewer patients than folds: one fold a patient. Raises `DataError` for
    fewer than two patients.
    """
    if folds < 2:
        raise RecipeError(f"folds={folds}: cross-validation needs at least 2; set folds to 2 or more")
    patients = _cases_by_patient(cases)
    if len(patients) < 2:
        raise DataError(
            f"{len(cases)} cases of {len(patients)} patients cannot be split; at least 2 patients are needed"
        )
    order = np.random.RandomState(seed).permutation(len(patients))  # nnU-Net's generator
    shuffled = [patients[i] for i in order]
    parts = _distribute(shuffled, min(folds, len(patients)))
    everything = {case.name for case in cases}
    return tuple(Split(tuple(sorted(everything - part)), tuple(sorted(part))) for part in parts)


def _cases_by_patient(cases: Sequence[Case]) -> list[list[str]]:
    """Names of each patient's cases; patients sorted by their first case."""
    groups: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda case: case.name):
        groups.setdefault(case.patient, []).append(case.name)
    return list(groups.values())


def _distribute(patients: list[list[str]], folds: int) -> list[set[str]]:
    if len({len(names) for names in patients}) == 1:
        chunks = np.array_split(np.arange(len(patients)), folds)  # the first ones are larger, as in KFold
        return [{name for i in chunk for name in patients[i]} for chunk in chunks]
    parts: list[set[str]] = [set() for _ in range(folds)]
    for names in sorted(patients, key=len, reverse=True):
        min(parts, key=len).update(names)
    return parts
