"""Cross-validation folds by patient, stratified by class; or the validation split that
a dataset declares.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field, RootModel

from trivox.datasets.dataset import Case, Dataset
from trivox.errors import DataError, RecipeError, few
from trivox.files import read_json, write_json
from trivox.schema import Frozen, validated

FILE = "splits.json"
"""File of a run that lists its folds."""
OWN = "dealt by patient"
SPLIT = "the split of the cases"
"""Where folds are from."""
Names = Sequence[str]
"""Names of all cases of one patient."""


@dataclass(frozen=True)
class Split:
    """Names of the cases to train on and to validate on, each sorted, and where they
    are from.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    source: str = field(default=OWN, compare=False)

    def and_trained_on(self, names: Sequence[str]) -> "Split":
        """The same, with more cases to train on."""
        return replace(self, train=tuple(sorted([*self.train, *names])))


class FoldRecord(Frozen):
    """A fold in splits.json: names of the cases to train on and to validate on, and
    where the folds are from, which files of 0.1.0 do not say.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    source: str = Field(OWN, alias="from")


class SplitsFile(RootModel[Annotated[tuple[FoldRecord, ...], Field(min_length=1)]]):
    """What splits.json says: the folds, the first is fold 0."""

    model_config = ConfigDict(frozen=True)


def dataset_splits(
    dataset: Dataset, *, folds: int = 5, seed: int = 12345
) -> tuple[Split, ...]:
    """The folds that a dataset declares, else those of `make_splits`; of the cases that
    can be trained on. Those that only a model answers for are trained on in every fold.

    Raises what that raises, and `DataError` for a declared fold of which no case is left
    to train or to validate on.
    """
    cases = dataset.training_cases
    known = [case for case in cases if not case.taught]
    if dataset.folds:
        splits = _declared_folds(dataset, known)
    else:
        splits = make_splits(known, folds=folds, seed=seed)
    taught = [case.name for case in cases if case.taught]
    return tuple(split.and_trained_on(taught) for split in splits)


def _declared_folds(dataset: Dataset, cases: Sequence[Case]) -> tuple[Split, ...]:
    names = {case.name for case in cases}
    splits = []
    for number, fold in enumerate(dataset.folds):
        train = tuple(sorted(names.intersection(fold.train)))
        validation = tuple(sorted(names.intersection(fold.validation)))
        if not train or not validation:
            side = "validate" if train else "train"
            raise DataError(
                f"{dataset.root}: fold {number} of {dataset.folds_from} has no case to "
                f"{side} on; correct it there"
            )
        splits.append(Split(train, validation, source=dataset.folds_from))
    return tuple(splits)


def write_folds(splits: Iterable[Split], run: Path) -> None:
    """Write the `splits.json` of a run."""
    content = [
        {
            "train": list(split.train),
            "validation": list(split.validation),
            "from": split.source,
        }
        for split in splits
    ]
    write_json(run / FILE, content)


def read_folds(run: Path) -> list[Split]:
    """The folds of a run; raises `DataError` for a `splits.json` that does not list
    them, and `FormatError` for one that cannot be read.
    """
    file = run / FILE
    listed = validated(
        SplitsFile,
        read_json(file),
        where=file,
        error=DataError,
        advice="restore the file",
    )
    return [Split(each.train, each.validation, each.source) for each in listed.root]


def trained_splits(run: Path, folds: Sequence[str]) -> list[Split]:
    """Those of a run's folds that have these names; raises what `read_folds` does."""
    listed = read_folds(run)
    numbers = [int(fold) for fold in folds if fold.isdecimal()]
    return [listed[number] for number in numbers if number < len(listed)]


def make_splits(
    cases: Sequence[Case], *, folds: int = 5, seed: int = 12345
) -> tuple[Split, ...]:
    """The declared validation split as the only fold, else the folds of `deal_folds`.

    Raises what that raises, and `DataError` for a patient on both sides of a declared
    split.
    """
    if any(case.split == "validation" for case in cases):
        return (_declared(cases),)
    names = [case.name for case in cases]
    parts = deal_folds(
        names,
        patients=[case.patient for case in cases],
        classes=[case.class_name for case in cases],
        folds=folds,
        seed=seed,
    )
    everything = set(names)
    return tuple(
        Split(tuple(sorted(everything - part)), tuple(sorted(part))) for part in parts
    )


def deal_folds(
    names: Sequence[str],
    *,
    patients: Sequence[str],
    classes: Sequence[str | None],
    folds: int,
    seed: int,
) -> list[set[str]]:
    """The names of each fold: all cases of a patient together, the same for any order.

    patients, classes: of each of `names`, which differ; a class that is not known is
    None. Fewer patients than folds: one fold a patient.

    - Without classes: if all patients have equally many cases, the folds of
      scikit-learn's `KFold(folds, shuffle=True, random_state=seed)` over the sorted
      patients; with one case each, nnU-Net's. Else patients go, largest first, to the
      fold with the fewest cases.
    - With classes: the patients of each class are dealt out evenly; one of several
      classes counts with the rarest, and "not known" is a class here. With one case a
      patient, folds differ by at most one case in each class and at most one in all. No
      fold holds all of a class of two patients or more.

    Raises `RecipeError` for one fold and `DataError` for one patient.
    """
    if folds < 2:
        raise RecipeError(
            f"folds={folds}: cross-validation needs at least 2; set folds to 2 or more"
        )
    groups = list(_by_patient(names, patients).values())
    if len(groups) < 2:
        raise DataError(
            f"{len(names)} cases of {len(groups)} patients cannot be split; at least 2 "
            "patients are needed"
        )
    order = np.random.RandomState(seed).permutation(len(groups))  # as nnU-Net
    shuffled = [groups[i] for i in order]
    count = min(folds, len(groups))
    if all(name is None for name in classes):
        return _distribute(shuffled, count)
    return _deal(shuffled, dict(zip(names, classes, strict=True)), count)


def _declared(cases: Sequence[Case]) -> Split:
    """The declared split, both sides sorted."""
    sides = {case.name: case.split for case in cases}
    names = sorted(sides)
    train = tuple(name for name in names if sides[name] == "train")
    validation = tuple(name for name in names if sides[name] == "validation")
    groups = _by_patient(
        [case.name for case in cases], [case.patient for case in cases]
    )
    for patient, group in groups.items():
        if len({sides[name] for name in group}) > 1:
            listed = few((f"{name} ({sides[name]})" for name in group), shown=6)
            raise DataError(
                f"patient '{patient}' is on both sides of the declared split: "
                f"{listed}; move all to one side"
            )
    if not train:
        raise DataError(
            f"all {len(validation)} cases are declared as validation; training needs "
            "some"
        )
    return Split(train, validation, source=SPLIT)


def _by_patient(names: Sequence[str], patients: Sequence[str]) -> dict[str, list[str]]:
    """Names of each patient's cases; patients sorted by their first case."""
    groups: dict[str, list[str]] = {}
    for name, patient in sorted(zip(names, patients, strict=True)):
        groups.setdefault(patient, []).append(name)
    return groups


def _deal(
    patients: Sequence[Names], classes: Mapping[str, str | None], folds: int
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
    patients: Sequence[Names], classes: Mapping[str, str | None]
) -> Iterator[list[Names]]:
    """Patients in groups of one class, rarest class first; a known class goes before an
    unknown one.
    """
    counts = Counter(classes.values())
    rank = {name: (name is None, counts[name], name or "") for name in counts}
    groups: dict[str | None, list[Names]] = {}
    for names in patients:
        rarest = min((classes[name] for name in names), key=lambda name: rank[name])
        groups.setdefault(rarest, []).append(names)
    for name in sorted(groups, key=lambda name: rank[name]):
        yield groups[name]


def _distribute(patients: Sequence[Names], folds: int) -> list[set[str]]:
    """Patients in runs of the order given if they have equally many cases, else largest
    first to the fold with the fewest cases.
    """
    parts: list[set[str]] = [set() for _ in range(folds)]
    if len({len(names) for names in patients}) == 1:
        runs = np.array_split(np.arange(len(patients)), folds)  # KFold: first larger
        for part, run in zip(parts, runs, strict=True):
            for number in run:
                part.update(patients[number])
        return parts
    for names in sorted(patients, key=len, reverse=True):
        min(parts, key=len).update(names)
    return parts
