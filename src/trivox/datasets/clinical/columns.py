"""Clinical columns (age, sex, a laboratory value) as features of a case.

Numbers stay numbers, NaN where they are not known, so that whoever learns from them can
fill in what is usual among its training cases. Categories become one yes-or-no feature
each. What is not known is a feature of its own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from trivox.datasets.class_tables import UNKNOWN
from trivox.datasets.dataset import Case
from trivox.errors import DataError, few
from trivox.schema import Frozen

MOST_CATEGORIES = 20
ENOUGH = 8
"""Cases from which on it is no chance that a column and the class say the same."""
PREFIX = "clinical"
"""How the names of these features begin."""


class ClinicalColumn(Frozen):
    """A column of a table; categories: what stood in it, none: numbers."""

    name: str
    categories: tuple[str, ...] = ()

    @property
    def unknown(self) -> str:
        """Name of the feature that says that it is not known."""
        return f"{PREFIX} {self.name} not known"

    def features(self, text: str) -> dict[str, float]:
        """The features of a cell by name; the names do not depend on it.

        Raises `ValueError` for text in a column of numbers.
        """
        known = is_known(text)
        features = {self.unknown: float(not known)}
        if not self.categories:
            value = number_in(text) if known else math.nan
            return {f"{PREFIX} {self.name}": value, **features}
        for category in self.categories:
            is_it = known and text.casefold() == category.casefold()
            features[f"{PREFIX} {self.name} {category}"] = float(is_it)
        return features

    def flag(self, text: str) -> str | None:
        """Why the answer to a case is less sure: its value is not known, or was not
        among those that were learnt from.
        """
        if not is_known(text):
            what = "the usual value" if not self.categories else "no category"
            return _as_flag(f"{self.name} not known: {what} is taken")
        spelled = {category.casefold() for category in self.categories}
        if spelled and text.casefold() not in spelled:
            what = f"{self.name} '{text:.40}' was not learnt"
            return _as_flag(f"{what}: no category is taken")
        return None


def _as_flag(text: str) -> str:
    """A text as it can stand among flags, which have semicolons between them."""
    return " ".join(text.replace(";", ",").split())


def is_known(text: str) -> bool:
    """Whether a cell says anything."""
    return text.strip().lower() not in UNKNOWN


def number_in(text: str) -> float:
    """The number in a cell; raises `ValueError` for what is no finite one."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"'{text}' is no number")
    return value


def clinical_features(
    columns: Iterable[ClinicalColumn], values: Mapping[str, str]
) -> dict[str, float]:
    """The features of a case, whose cells `values` gives by column."""
    features: dict[str, float] = {}
    for column in columns:
        features |= column.features(values.get(column.name, ""))
    return features


def clinical_flags(
    columns: Iterable[ClinicalColumn], values: Mapping[str, str]
) -> tuple[str, ...]:
    """Why to doubt the answer to a case."""
    flags = [column.flag(values.get(column.name, "")) for column in columns]
    return tuple(flag for flag in flags if flag is not None)


def columns_of(
    cases: Sequence[Case], wanted: Sequence[str]
) -> tuple[ClinicalColumn, ...]:
    """What columns hold in the cases that can be learnt from: numbers, if all that is
    known are, else categories.

    Raises `DataError` for a column that nothing can be learnt from: nothing is known,
    all is the same, too many categories, or it gives the class away.
    """
    return tuple(_column(cases, name) for name in wanted)


def _column(cases: Sequence[Case], name: str) -> ClinicalColumn:
    where = f"clinical column '{name}'"
    cells = {case.name: case.clinical.get(name, "").strip() for case in cases}
    known = {case: text for case, text in cells.items() if is_known(text)}
    if not known:
        raise DataError(
            f"{where}: holds nothing for the {len(cases)} cases; leave it out"
        )
    numbers = _all_numbers(known.values())
    spelled: dict[str, str] = {}
    for text in known.values():
        spelled.setdefault(text.casefold(), text)
    values = {case: _plain(text, numbers) for case, text in known.items()}
    if len({*values.values()}) < 2:
        raise DataError(
            f"{where}: says '{next(iter(known.values()))}' of all cases; leave it out"
        )
    _require_no_leak(cases, values, where)
    if numbers:
        return ClinicalColumn(name=name)
    if len(spelled) > MOST_CATEGORIES:
        raise DataError(
            f"{where}: holds {len(spelled)} different texts ({few(spelled.values())}), "
            "which are neither numbers nor categories; write numbers alone, or group them"
        )
    return ClinicalColumn(name=name, categories=tuple(sorted(spelled.values())))


def _plain(text: str, number: bool) -> str:
    """A value as it is compared: 1, 1.0 and 01 are one number, f and F one category."""
    return f"{number_in(text):g}" if number else text.casefold()


def _all_numbers(texts: Iterable[str]) -> bool:
    try:
        for text in texts:
            number_in(text)
    except ValueError:
        return False
    return True


def _require_no_leak(
    cases: Sequence[Case], known: Mapping[str, str], where: str
) -> None:
    """Raise `DataError` for another spelling of the class: each value goes with one
    class, and each class with one value.
    """
    said = [
        (known[case.name], case.class_name)
        for case in cases
        if case.class_name is not None and case.name in known
    ]
    pairs = {*said}
    values = {value for value, _ in pairs}
    classes = {name for _, name in pairs}
    one_to_one = len(pairs) == len(values) == len(classes)
    if len(classes) > 1 and one_to_one and len(said) >= ENOUGH:
        raise DataError(
            f"{where}: says of every case its class ({few(sorted(values))}); it would "
            "give the answer away, leave it out"
        )
