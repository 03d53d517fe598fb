"""Folds that a dataset declares: in nnU-Net's `splits_final.json`, or in the column
`fold` of a table.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from trivox.datasets.dataset import Case, Fold
from trivox.errors import FormatError, few
from trivox.files import read_json

SPLITS = "splits_final.json"
COLUMN = "fold"


class Declared(NamedTuple):
    """Folds, where they stand, and what has to be said of them."""

    folds: tuple[Fold, ...] = ()
    source: str = ""
    remarks: tuple[str, ...] = ()


def read_splits(file: Path, cases: Sequence[Case]) -> Declared:
    """The folds in nnU-Net's `splits_final.json`, none if there is no such file.

    A case without label map that is in no fold, which nnU-Net cannot list, is trained on
    in every fold that does not validate on its patient. Raises `FormatError` for a file
    that lists no folds, names that are no cases to train on, and cases on both sides.
    """
    if not file.is_file():
        return Declared()
    content = read_json(file)
    if not isinstance(content, list) or not all(_is_fold(fold) for fold in content):
        raise FormatError(
            f'{file}: must list folds such as {{"train": [...], "val": [...]}}; '
            "correct or remove it"
        )
    folds = [
        Fold(train=tuple(fold["train"]), validation=tuple(fold["val"]))
        for fold in content
    ]
    if not folds:
        raise FormatError(f"{file}: lists no fold; correct or remove it")
    for number, fold in enumerate(folds):
        _require_possible(fold, cases, f"{file}: fold {number}")
    remarks = [*_left_out(folds, cases), *_leaks(folds, cases)]
    completed = [_completed(fold, folds, cases) for fold in folds]
    said = tuple(f"{SPLITS}: {remark}" for remark in remarks)
    return Declared(tuple(completed), SPLITS, said)


def folds_of_column(
    cases: Sequence[Case], numbers: Mapping[str, int | None], *, where: Path
) -> Declared:
    """The folds that the column `fold` gives, `numbers` by case: a case is validated on
    in the fold of its number and trained on in all others; none without any number.

    A case without number is trained on in all of them. Raises `FormatError` for a single
    number, or a validation split beside the folds.
    """
    learnt = [case for case in cases if case.split != "test"]
    known = sorted({n for case in learnt if (n := numbers.get(case.name)) is not None})
    if not known:
        return Declared()
    if any(case.split == "validation" for case in learnt):
        raise FormatError(
            f"{where}: both '{COLUMN}' and 'split' say what is validated on; leave one "
            "out"
        )
    if len(known) < 2:
        raise FormatError(
            f"{where}: all cases are in fold {known[0]}; give at least two folds, or "
            f"leave out '{COLUMN}'"
        )
    folds = [_validated_on(number, learnt, numbers) for number in known]
    remarks = [*_leaks(folds, cases), *_numbering(known, learnt, numbers)]
    source = f"column '{COLUMN}' of {where.name}"
    said = tuple(f"{source}: {remark}" for remark in remarks)
    return Declared(tuple(folds), source, said)


def _validated_on(
    number: int, cases: Sequence[Case], numbers: Mapping[str, int | None]
) -> Fold:
    """The fold that validates on the cases of a number."""
    sides = defaultdict(list)
    for case in cases:
        sides[numbers.get(case.name) == number].append(case.name)
    return Fold(train=tuple(sides[False]), validation=tuple(sides[True]))


def _numbering(
    known: Sequence[int], cases: Iterable[Case], numbers: Mapping[str, int | None]
) -> Iterable[str]:
    """What has to be said of the numbers of folds."""
    without = [case.name for case in cases if numbers.get(case.name) is None]
    if without:
        yield (
            f"{few(without)} have no fold, so that they are trained on in all and "
            "validated on in none; fill the column if that is not meant"
        )
    if known != list(range(len(known))):
        listed = ", ".join(str(number) for number in known)
        last = len(known) - 1
        yield f"folds {listed} are --fold 0 to {last}; renumber them from 0"


def _is_fold(content: Any) -> bool:
    if not isinstance(content, dict) or not {"train", "val"} <= set(content):
        return False
    sides = (content["train"], content["val"])
    if not all(isinstance(side, list) for side in sides):
        return False
    return all(isinstance(name, str) for name in chain.from_iterable(sides))


def _require_possible(fold: Fold, cases: Sequence[Case], where: str) -> None:
    known = {case.name for case in cases if case.split != "test"}
    tests = {case.name for case in cases if case.split == "test"}
    listed = (*fold.train, *fold.validation)
    both = sorted(set(fold.train) & set(fold.validation))
    held_out = [name for name in listed if name in tests]
    strange = [name for name in listed if name not in known]
    if both:
        complaint = f"train and val both hold {few(both)}"
    elif held_out:
        complaint = f"it names {few(held_out)} of the test set"
    elif strange:
        complaint = f"it names {few(strange)}, which the dataset lacks"
    elif not fold.train or not fold.validation:
        complaint = f"{'val' if fold.train else 'train'} is empty"
    else:
        return
    raise FormatError(f"{where}: {complaint}; correct or remove the file")


def _left_out(folds: Sequence[Fold], cases: Iterable[Case]) -> Iterable[str]:
    """Cases with a label map that are on no side of a fold."""
    names = [case.name for case in cases if case.split != "test" and case.label]
    lacking = [set(names) - {*fold.train, *fold.validation} for fold in folds]
    everywhere = set[str](names).intersection(*lacking)
    some = set[str]().union(*lacking) - everywhere
    if everywhere:
        yield f"no fold uses {few(sorted(everywhere))}; add what is meant to be used"
    if some:
        yield f"some folds leave out {few(sorted(some))}; add what is meant to be used"


def _leaks(folds: Sequence[Fold], cases: Iterable[Case]) -> Iterable[str]:
    """Patients on both sides of a fold."""
    patients = {case.name: case.patient for case in cases}
    for number, fold in enumerate(folds):
        trained = {patients[name] for name in fold.train}
        both = trained & {patients[name] for name in fold.validation}
        if both:
            yield (
                f"fold {number} has patients {few(sorted(both))} on both sides, so that "
                "its figures flatter; put all cases of a patient on one side"
            )


def _completed(fold: Fold, folds: Sequence[Fold], cases: Iterable[Case]) -> Fold:
    """`fold` with the cases in its training that nnU-Net cannot list."""
    listed = set[str]().union(*((*each.train, *each.validation) for each in folds))
    cases = [case for case in cases if case.split != "test"]
    held_out = {case.patient for case in cases if case.name in fold.validation}
    more = [
        case.name
        for case in cases
        if case.label is None
        and case.class_name is not None
        and case.name not in listed
        and case.patient not in held_out
    ]
    return Fold(train=(*fold.train, *more), validation=fold.validation)
