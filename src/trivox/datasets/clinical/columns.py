"""Clinical columns (age, sex, a laboratory value) as features of a case.

Numbers stay numbers, NaN where they are not known, so that whoever learns from them can
fill in what is usual among its training cases. Categories become one yes-or-no feature
each. What is not known is a feature of its own.
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence

from trivox.datasets.class_tables import UNKNOWN
from trivox.datasets.dataset import Case
from trivox.errors import DataError, few
from trivox.schema import Frozen

MOST_CATEGORIES = 20
ENOUGH = 8
"""Cases from which on it is no chance that a column and the class say the same."""
LARGEST = 1e30
"""Numbers beyond are slips of the pen; their squares would be beyond all measure."""
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

    @property
    def number(self) -> str:
        """Name of the feature that is the value of a column of numbers."""
        return f"{PREFIX} {self.name}"

    def features(self, text: str) -> dict[str, float]:
        """The features of a cell by name; the names do not depend on it.

        Raises `ValueError` for text in a column of numbers.
        """
        known = is_known(text)
        features = {self.unknown: float(not known)}
        if not self.categories:
            value = number_in(text) if known else math.nan
            return {self.number: value, **features}
        for category in self.categories:
            is_it = known and text.casefold() == category.casefold()
            features[f"{PREFIX} {self.name} {category}"] = float(is_it)
        return features

    def flag(self, text: str, *, far: bool = False) -> str | None:
        """Why the answer to a case is less sure: its value is not known, or was not
        among those that were learnt from.

        far: whether it is a number far from them.
        """
        if far:
            return _as_flag(f"{self.name} {text:.40} lies far from what was learnt")
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
    """The number in a cell; raises `ValueError` for what is none, or beyond 1e30.

    Python reads `1_5` as 15; in a table it is a name.
    """
    value = float(text)
    if "_" in text or not abs(value) <= LARGEST:
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
    columns: Iterable[ClinicalColumn],
    values: Mapping[str, str],
    *,
    beyond: Container[str] = (),
) -> tuple[str, ...]:
    """Why to doubt the answer to a case; beyond: names of features that lie far from
    what was learnt.
    """
    flags = [
        column.flag(values.get(column.name, ""), far=column.number in beyond)
        for column in columns
    ]
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
        which = "all cases"
        if len(known) < len(cases):
            which += f" that it is known of ({len(known)} of {len(cases)})"
        raise DataError(
            f"{where}: says '{next(iter(known.values()))}' of {which}; leave it out"
        )
    _require_no_leak(cases, values, where)
    if numbers:
        return ClinicalColumn(name=name)
    if len(spelled) > MOST_CATEGORIES:
        texts = [text for text in spelled.values() if not _is_number(text)]
        raise DataError(
            f"{where}: holds {len(spelled)} different texts, which are neither numbers "
            f"({few(texts)}: none, or beyond {LARGEST:g}) nor categories; write numbers "
            "alone, or group them"
        )
    return ClinicalColumn(name=name, categories=tuple(sorted(spelled.values())))


def _plain(text: str, number: bool) -> str:
    """A value as it is compared: 1, 1.0 and 01 are one number, f and F one category."""
    return f"{number_in(text):g}" if number else text.casefold()


def _all_numbers(texts: Iterable[str]) -> bool:
    return all(_is_number(text) for text in texts)


def _is_number(text: str) -> bool:
    try:
        number_in(text)
    except ValueError:
        return False
    return True


def _said_with_class(
    cases: Sequence[Case], known: Mapping[str, str]
) -> list[tuple[str, str]]:
    """The value and the class of each case of which both are known."""
    return [
        (known[case.name], case.class_name)
        for case in cases
        if case.class_name is not None and case.name in known
    ]


def _require_no_leak(
    cases: Sequence[Case], known: Mapping[str, str], where: str
) -> None:
    """Raise `DataError` for another spelling of the class: each value goes with one
    class, and each class with one value.
    """
    said = _said_with_class(cases, known)
    pairs = {*said}
    values = {value for value, _ in pairs}
    classes = {name for _, name in pairs}
    one_to_one = len(pairs) == len(values) == len(classes)
    if len(classes) > 1 and one_to_one and len(said) >= ENOUGH:
        raise DataError(
            f"{where}: says of every case its class ({few(sorted(values))}); it would "
            "give the answer away, leave it out"
        )


def column_lines(cases: Sequence[Case], columns: Iterable[ClinicalColumn]) -> list[str]:
    """How columns are read, for people: as numbers or as which categories, and whether
    one of them is suspiciously good.
    """
    listed = tuple(columns)
    if not listed:
        return []
    described = [f"{column.name}: {_reading_of(column)}" for column in listed]
    return [
        f"clinical columns: {'; '.join(described)}",
        *(line for column in listed for line in _too_good(cases, column)),
    ]


def _reading_of(column: ClinicalColumn) -> str:
    if not column.categories:
        return "numbers"
    line = f"categories {few(column.categories)}"
    texts = [text for text in column.categories if not _is_number(text)]
    if not 0 < len(texts) < len(column.categories):
        return line
    return f"{line} (no numbers, because of {few(texts)})"


def _too_good(cases: Sequence[Case], column: ClinicalColumn) -> list[str]:
    """A warning where every value goes with one class in so many cases that it is no
    chance: a finer spelling of the class.
    """
    cells = {case.name: case.clinical.get(column.name, "").strip() for case in cases}
    numbers = not column.categories
    known = {
        case: _plain(text, numbers) for case, text in cells.items() if is_known(text)
    }
    said = _said_with_class(cases, known)
    pairs = {*said}
    values = {value for value, _ in pairs}
    repeated = len(said) - len(values)
    if len({name for _, name in pairs}) < 2 or len(pairs) > len(values):
        return []
    if repeated < ENOUGH:
        return []
    return [
        f"warning: clinical column '{column.name}' tells the class of every case; leave "
        "it out if it was known from the class"
    ]
